"""The kernels in torch where the processor multiplies bytes: integers choose candidates, fp32 takes the largest.

A dither, random numbers from -1/2 to 1/2, is added to each column before rounding and taken off the products, which
makes rounding errors uniform and independent whatever the data (Schuchman 1964). Sums of such errors are sub-Gaussian:
one passes six of its standard deviations in 3 of 100 million cases. A row of which that margin does not show that its
candidates hold all of the largest is searched in fp32.

`quantized.hpp` does the same where there is a C++ compiler. Where there is none, a TopK step (d = 512, k = 32, batches
of 4,096, one thread, AVX-512 VNNI) without this file takes 1.27 times the CPU time for 4,096 latents, and 1.48 times
for 16,384 (`benchmarks/engine.py --against`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from husai_core.saes.kernels.torch_cpu import TorchCPU, largest
from husai_core.seeding import generator

LEVELS = 126
"""The largest integer before its dither."""
MARGIN = 6.0
TILE = 1 << 21
"""Pre-activations that are held at once, as integers and in fp32."""
PACKED = 1 << 18
"""Weights that are rounded at once, in cache."""
CHOICE, WEIGHTS, BATCH = 64, 1 << 21, 512
"""From so many latents for each chosen one, weights and rows, choosing by integers pays."""
WIDEST = 4
"""Candidates for each latent that is chosen; as many as the first rows turn out to need for the rows after those."""
SURE, SPARE = 0.98, 4
"""Share of the first rows that have candidates enough, and one further candidate for how many chosen latents."""
WORTH = 0.5
"""With a smaller share of a tile's rows shown to be right, all further rows are searched in fp32."""
TINY, ROUNDING = 1e-30, 2.0**-20
"""The least scale, and the share of the largest bias by which sums in fp32 may be off."""


class TorchInt8(TorchCPU):
    """See `Kernels`."""

    name = "torch-int8"

    def top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        (s, n, d), b = encoder.shape, x.shape[1]
        if n < CHOICE * k or n * d < WEIGHTS or b < BATCH or d == 1:
            return super().top(x, encoder, bias, k)
        values, latents = torch.empty(s, b, k), torch.empty(s, b, k, dtype=torch.int32)
        for i in range(s):
            rows = x[i if len(x) > 1 else 0]
            unsure = self._search(rows, encoder[i], bias[i], values[i], latents[i]).logical_not_().nonzero()[:, 0]
            if len(unsure):
                exact = super().top(rows[None, unsure], encoder[i : i + 1], bias[i : i + 1], k)
                values[i, unsure], latents[i, unsure] = exact[0][0], exact[1][0]
            latents[i] += i * n
        return values, latents

    def _search(self, x: Tensor, encoder: Tensor, bias: Tensor, values: Tensor, latents: Tensor) -> Tensor:
        """Fill values and latents [b, k], and say of which rows [b] they are shown to be the largest."""
        sure, k = torch.zeros(len(x), dtype=torch.bool), values.shape[1]
        quantized, count, width = QuantizedEncoder(encoder, bias), max(1, TILE // len(encoder)), WIDEST * k
        for start in range(0, len(x), count):
            block = slice(start, start + count)
            scores, unit, slack = quantized(x[block])
            scores, places = largest(scores, width)
            exact = self._exact(x[block], places.int(), encoder).add_(bias[places])
            values[block], best = exact.topk(k, sorted=False)
            latents[block] = places.gather(1, best)
            highest = torch.where(scores.isinf(), torch.inf, scores * unit[:, None] + slack[:, None])
            beaten = (highest < values[block].amin(1, keepdim=True)).sum(1)
            sure[block] = beaten > 0
            if sure[block].float().mean() < WORTH:
                break
            if start == 0:
                width = max(k + 1, width - max(0, int(beaten.float().quantile(1 - SURE)) - k // SPARE - 1))
        return sure

    def _exact(self, x: Tensor, places: Tensor, encoder: Tensor) -> Tensor:
        """Inner products of rows [b, d] with some latents [b, m] each."""
        b, m = places.shape
        row_of = torch.arange(b, dtype=torch.int32).repeat_interleave(m)
        starts = torch.arange(0, b * m + 1, m, dtype=torch.int32)
        return self.dots(x, row_of, places.flatten(), starts, encoder).view(b, m)


class QuantizedEncoder:
    """An encoder [n, d] and its biases [n] as integers."""

    def __init__(self, encoder: Tensor, bias: Tensor) -> None:
        n, d = encoder.shape
        self.dither = torch.rand(2, d, generator=generator(0, "dither")) - 0.5
        self.scale = _scale(encoder).amax()
        self.norm = torch.linalg.vector_norm(encoder / self.scale, dim=1).amax()
        self.integers, corrections = torch.empty(n, d, dtype=torch.int8), torch.empty(n)
        for start in range(0, n, max(1, PACKED // d)):
            block = slice(start, start + max(1, PACKED // d))
            numbers = _rounded(encoder[block], self.scale, self.dither[1])
            self.integers[block], corrections[block] = numbers, numbers @ self.dither[0]
        self.rounding = ROUNDING * bias.abs().amax()
        self.offset, self.bias = self.dither[0] @ self.dither[1] - corrections, bias / self.scale
        count = max(1, TILE // n)
        self.products, self.scores = torch.empty(count, n, dtype=torch.int32), torch.empty(count, n)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of rows [b, d], valid until the next call, and what follows for pre-activations.

        A score in [b, n] stands for a pre-activation of at most score * unit [b] + slack [b].
        """
        scale = _scale(x)
        numbers = _rounded(x, scale, self.dither[0])
        rows = torch.empty(x.shape, dtype=torch.int8).copy_(numbers)  # `_int_mm` takes the strides of few rows amiss
        products = torch._int_mm(rows, self.integers.T, out=self.products[: len(x)])
        scores = self.scores[: len(x)].copy_(products)
        scores.addcmul_(self.bias, 1 / scale).add_(self.offset)
        unit = (scale * self.scale)[:, 0]
        squares = torch.linalg.vecdot(x / scale, x / scale) + self.norm.square() + x.shape[1] / 12
        error = MARGIN * unit * (squares / 12).sqrt() + self.rounding
        return scores, unit, error - unit * (numbers @ self.dither[1])


def _scale(rows: Tensor) -> Tensor:
    """What one stands for [m, 1] when rows [m, d] are integers."""
    return torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).clamp(min=TINY) / LEVELS


def _rounded(rows: Tensor, scale: Tensor, dither: Tensor) -> Tensor:
    """Rows [m, d] as integer multiples of a scale."""
    return torch.addcmul(dither, rows, 1 / scale).round_()


@cache
def multiplies_bytes() -> bool:
    """Whether torch multiplies bytes fast here and does so exactly, whatever it has been limited to."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.cpu._is_vnni_supported():
        return False
    rows = torch.full((64, 64), 127, dtype=torch.int8)
    rows[::2, ::3] = -127
    return torch.equal(torch._int_mm(rows, rows.T), rows.int() @ rows.int().T)
