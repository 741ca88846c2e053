"""The kernels in Triton, for CUDA; with TRITON_INTERPRET=1 they run on the CPU, slowly, for tests.

Every output element is written by one program in a fixed order: no atomics, so results repeat.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from husai_core.saes.kernels import BETAS, EPSILON
from husai_core.saes.kernels.torch_cuda import TorchCUDA

MOST_ENTRIES = 32_768
"""The longest row that one program selects from; it is held in registers."""
COLUMNS = 256


class Triton(TorchCUDA):
    """See `Kernels`; matrix products and what concerns a whole batch stay torch's."""

    name = "triton"

    def largest(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return select(z, k) if z.shape[-1] <= MOST_ENTRIES else super().largest(z, k)

    def decode(self, values: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        return _sums(values, latents, starts, dictionary)

    def outer(self, weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
        """See `Kernels`."""
        return _sums(weights, source, starts, rows)

    def dots(self, rows: Tensor, row_of: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        out, d = torch.empty(len(latents), device=rows.device), rows.shape[1]
        if len(latents):
            _dots[(len(latents),)](rows, row_of, latents, dictionary, out, d, COLUMNS)
        return out

    def adam(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: float, step: int, unit: bool
    ) -> None:
        """See `Kernels`."""
        d = weights.shape[-1]
        rate, correction = lr / (1 - BETAS[0] ** step), 1 / (1 - BETAS[1] ** step)
        constants = (*BETAS, rate, correction, EPSILON, unit, triton.next_power_of_2(d))
        _adam[(weights.numel() // d,)](weights, gradient.contiguous(), *moments, d, *constants)


def select(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of the last axis and their indices int64, in the order of the indices."""
    rows, n = z.numel() // z.shape[-1], z.shape[-1]
    shape = (*z.shape[:-1], k)
    values, places = z.new_empty(shape), torch.empty(shape, dtype=torch.int64, device=z.device)
    _select[(rows,)](z, values, places, n, k, triton.next_power_of_2(n))
    return values, places


def _sums(weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
    count, d = len(starts) - 1, rows.shape[1]
    out = torch.empty(count, d, device=rows.device)
    _weighted[(count, triton.cdiv(d, COLUMNS))](weights, source, starts, rows, out, d, COLUMNS)
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _select(z, values, places, n, k, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The k-th largest by its bits, from the highest down; then what is above it, and the first of its equals."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    entry = tl.load(z + row * n + column, mask=column < n, other=0.0)
    bits = entry.to(tl.int32, bitcast=True)
    key = tl.where(column < n, (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648, -1)
    least = tl.zeros((), tl.int64)
    for i in range(32):
        higher = least + (tl.full((), 1, tl.int64) << (31 - i))
        least = tl.where(tl.sum((key >= higher).to(tl.int32)) >= k, higher, least)
    above = key > least
    equal = (key == least).to(tl.int32)
    wanted = k - tl.sum(above.to(tl.int32))
    kept = above | ((equal > 0) & (tl.cumsum(equal) <= wanted))
    to = row * k + tl.cumsum(kept.to(tl.int32)) - 1
    tl.store(values + to, entry, mask=kept)
    tl.store(places + to, column.to(tl.int64), mask=kept)


@triton.jit  # type: ignore[untyped-decorator]
def _weighted(weights, source, starts, rows, out, d, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    segment = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for entry in range(tl.load(starts + segment), tl.load(starts + segment + 1)):
        at = tl.load(source + entry).to(tl.int64)
        total += tl.load(weights + entry) * tl.load(rows + at * d + column, mask=column < d, other=0.0)
    tl.store(out + segment * d + column, total, mask=column < d)


@triton.jit  # type: ignore[untyped-decorator]
def _dots(rows, row_of, latents, dictionary, out, d, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    entry = tl.program_id(0).to(tl.int64)
    row, latent = tl.load(row_of + entry).to(tl.int64), tl.load(latents + entry).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, d, BLOCK):
        column = first + tl.arange(0, BLOCK)
        values = tl.load(rows + row * d + column, mask=column < d, other=0.0)
        total += values * tl.load(dictionary + latent * d + column, mask=column < d, other=0.0)
    tl.store(out + entry, tl.sum(total))


@triton.jit  # type: ignore[untyped-decorator]
def _adam(  # type: ignore[no-untyped-def]
    weights,
    gradient,
    first,
    second,
    d,
    beta1,
    beta2,
    rate,
    correction,
    epsilon,
    UNIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.arange(0, BLOCK)
    at, inside = tl.program_id(0).to(tl.int64) * d + column, column < d
    w, g = tl.load(weights + at, mask=inside, other=0.0), tl.load(gradient + at, mask=inside, other=0.0)
    m, v = tl.load(first + at, mask=inside, other=0.0), tl.load(second + at, mask=inside, other=0.0)
    if UNIT:
        g -= tl.sum(g * w) * w
    m += (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * g * g
    w -= rate * m / (tl.sqrt(v * correction) + epsilon)
    if UNIT:
        w /= tl.sqrt(tl.sum(w * w))
    tl.store(first + at, m, mask=inside)
    tl.store(second + at, v, mask=inside)
    tl.store(weights + at, w, mask=inside)
