"""Latents of a stacked batch, and the sums over them that a training step needs.

Shapes: s members, b rows per member, n latents per member, d columns, e entries. Both classes offer the same
operations; a `SparseCode` keeps the active latents only, which pays once n is much larger than their number per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from husai_core.saes.kernels import Kernels
from husai_core.saes.kernels.torch_cpu import expand, starts_of

DENSE = 32
"""Up to this many latents for each active one, matrix products with zeros are faster than sparse sums."""
TIE = 1e-5
"""Pre-activations that differ by less than this share of their row's largest may rank either way in fp32."""


class Code(Protocol):
    """Latents of a batch: `values` is [s, b, n] or [e]; weights below are like it."""

    values: Tensor

    def decode(self, dictionary: Tensor) -> Tensor:
        """Sum of dictionary rows [s, n, d] weighted by the latents: [s, b, d]."""

    def dots(self, dictionary: Tensor, rows: Tensor) -> Tensor:
        """Inner products of each latent's dictionary row with its row of `rows` [s, b, d]; like `values`."""

    def totals(self, weights: Tensor) -> Tensor:
        """For each latent, the sum of the weights over the batch: [s, n]."""

    def outer(self, weights: Tensor, rows: Tensor) -> Outer:
        """For each latent, the sum of rows [s or 1, b, d] times their weight for it."""


class Outer(Protocol):
    """Sums per latent [s * n, d] that are computed in blocks, so that they need not all exist at once."""

    def block(self, latents: slice) -> Tensor:
        """The sums of some consecutive latents [m, d], in a new tensor."""


@dataclass
class DenseCode:
    """All latents of each row."""

    values: Tensor

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Code`."""
        return self.values @ dictionary

    def dots(self, dictionary: Tensor, rows: Tensor) -> Tensor:
        """See `Code`."""
        return rows @ dictionary.transpose(1, 2)

    def totals(self, weights: Tensor) -> Tensor:
        """See `Code`."""
        return weights.sum(1)

    def outer(self, weights: Tensor, rows: Tensor) -> Outer:
        """See `Code`."""
        return Sums((weights.transpose(1, 2) @ rows).flatten(0, 1))


@dataclass(frozen=True)
class Sums:
    """Sums that exist already, [s * n, d]."""

    rows: Tensor

    def block(self, latents: slice) -> Tensor:
        """See `Outer`."""
        return self.rows[latents].clone()


@dataclass
class SparseCode:
    """The active latents, ordered by member and row.

    `latents` int32 [e] count through all members; `starts` int32 [r + 1] says where each row's entries begin. Several
    consecutive rows may stand for the parts of one (Matryoshka's levels).
    """

    values: Tensor
    latents: Tensor
    starts: Tensor
    shape: tuple[int, int, int]
    """s, b, n."""
    kernels: Kernels

    @cached_property
    def row_of(self) -> Tensor:
        """The row of each entry, int32 [e]."""
        return expand(self.starts, len(self.latents))

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """Entries ordered by latent, and where each latent's begin."""
        return self.kernels.transpose(self.latents, self.shape[0] * self.shape[2])

    def divided(self, ends: Tensor) -> SparseCode:
        """The same entries, every row in parts: the latents below each of `ends` (int32 [parts], the last is n)."""
        level = torch.bucketize(self.latents % self.shape[2], ends, right=True)
        starts = starts_of(self.row_of.long() * len(ends) + level, (len(self.starts) - 1) * len(ends))
        parts = SparseCode(self.values, self.latents, starts, self.shape, self.kernels)
        parts.by_latent = self.by_latent
        return parts

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Code`; [s, b * parts, d]."""
        rows = self.kernels.decode(self.values, self.latents, self.starts, dictionary.flatten(0, 1))
        return rows.view(self.shape[0], -1, dictionary.shape[-1])

    def dots(self, dictionary: Tensor, rows: Tensor) -> Tensor:
        """See `Code`; rows are [s, b * parts, d]."""
        flat = rows.flatten(0, 1)
        return self.kernels.dots(flat, self.row_of, self.latents, self.starts, dictionary.flatten(0, 1))

    def totals(self, weights: Tensor) -> Tensor:
        """See `Code`."""
        sums = weights.new_zeros(self.shape[0] * self.shape[2])
        return sums.index_add_(0, self.latents, weights).view(self.shape[0], self.shape[2])

    def outer(self, weights: Tensor, rows: Tensor) -> Outer:
        """See `Code`; rows are [s or 1, b * parts, d]."""
        order, starts = self.by_latent
        source = self.row_of[order]
        if len(rows) < self.shape[0]:
            source = source % rows.shape[1]
        return Scattered(weights[order], source, starts, rows.flatten(0, 1), self.kernels)


@dataclass(frozen=True)
class Scattered:
    """Sums per latent of a sparse code; entries are ordered by latent."""

    weights: Tensor
    source: Tensor
    starts: Tensor
    rows: Tensor
    kernels: Kernels

    def block(self, latents: slice) -> Tensor:
        """See `Outer`."""
        return self.kernels.outer(self.weights, self.source, self.starts[latents.start : latents.stop + 1], self.rows)


def top(x: Tensor, encoder: Tensor, bias: Tensor, k: int, kernels: Kernels) -> Code:
    """The k largest pre-activations of each row, negative ones as 0; dense where matrix products are cheaper.

    `x` is [s or 1, b, d], `encoder` [s, n, d], `bias` [s, n].
    """
    s, n, _ = encoder.shape
    if n <= DENSE * k:
        z = torch.matmul(x, encoder.transpose(1, 2)).add_(bias[:, None])
        values, places = kernels.largest(z, k)
        return DenseCode(torch.zeros_like(z).scatter_(-1, places, values.relu_()))
    values, latents = kernels.top(x, encoder, bias, k)
    starts = torch.arange(0, values.numel() + 1, k, dtype=torch.int32, device=x.device)
    return SparseCode(values.flatten().relu_(), latents.flatten(), starts, (s, x.shape[1], n), kernels)


def recall(x: Tensor, encoder: Tensor, bias: Tensor, k: int, kernels: Kernels) -> float:
    """Share of what `top` chooses that is among the k largest of a plain matrix product, or as large as they are."""
    code = top(x, encoder, bias, k, kernels)
    if not isinstance(code, SparseCode):
        return 1.0
    s, b, n = code.shape
    z = torch.matmul(x, encoder.transpose(1, 2)).add_(bias[:, None])
    chosen = z.gather(-1, (code.latents.view(s, b, k) % n).long())
    least = z.topk(k, sorted=False).values.amin(-1, keepdim=True)
    return float((chosen >= least - TIE * z.abs().amax(-1, keepdim=True)).double().mean())
