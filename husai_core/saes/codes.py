"""Latents of a stacked batch, and the sums over them that a training step needs.

Shapes: s members, b rows per member, n latents, d columns. Both classes offer the same operations; `SparseCode` keeps
k latents per row and never builds [s, b, n], which pays once n is much larger than k.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

GROUP = 4
DENSE = 32
"""Up to this many latents for each active one, matrix products with zeros are faster than sparse sums."""


class Code(Protocol):
    """Non-negative latents of a batch."""

    values: Tensor

    def decode(self, dictionary: Tensor) -> Tensor:
        """Sum of dictionary rows [s, n, d] weighted by the latents: [s, b, d]."""

    def backward(self, dictionary: Tensor, upstream: Tensor, penalty: float) -> Tensor:
        """Gradient to the pre-activations (like `values`), given that to the decoded rows [s, b, d].

        Every latent also costs `penalty` times its value.
        """

    def outer(self, weights: Tensor, rows: Tensor) -> Tensor:
        """For each latent, the sum of rows [s, b, d] times their weight for it (like `values`): [s, n, d]."""

    def totals(self, weights: Tensor) -> Tensor:
        """For each latent, the sum of the weights (like `values`) over the batch: [s, n]."""


@dataclass
class DenseCode:
    """All latents of each row, `values` [s, b, n]."""

    values: Tensor

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Code`."""
        return self.values @ dictionary

    def backward(self, dictionary: Tensor, upstream: Tensor, penalty: float) -> Tensor:
        """See `Code`."""
        return (upstream @ dictionary.transpose(1, 2)).add_(penalty).mul_(self.values > 0)

    def outer(self, weights: Tensor, rows: Tensor) -> Tensor:
        """See `Code`."""
        return weights.transpose(1, 2) @ rows

    def totals(self, weights: Tensor) -> Tensor:
        """See `Code`."""
        return weights.sum(1)


@dataclass
class SparseCode:
    """Some latents of each row: `values` and `indices` [s, b, k], out of n."""

    values: Tensor
    indices: Tensor
    n: int

    @cached_property
    def flat(self) -> Tensor:
        """Indices [s * b, k] into the members' latents laid end to end."""
        members = torch.arange(len(self.indices), device=self.indices.device)
        return (self.indices + self.n * members[:, None, None]).flatten(0, 1)

    @cached_property
    def by_latent(self) -> tuple[Tensor, Tensor]:
        """Positions in `values` ordered by latent, and where each latent's begin."""
        latents = self.flat.flatten()
        counts = torch.bincount(latents, minlength=len(self.indices) * self.n)
        return latents.argsort(stable=True), counts.cumsum(0) - counts

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Code`."""
        return self._bags(dictionary, self.values)

    def backward(self, dictionary: Tensor, upstream: Tensor, penalty: float) -> Tensor:
        """See `Code`."""
        with torch.enable_grad():
            values = self.values.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._bags(dictionary, values), values, upstream)
        return (gradient + penalty) * (self.values > 0)

    def outer(self, weights: Tensor, rows: Tensor) -> Tensor:
        """See `Code`."""
        order, starts = self.by_latent
        source = torch.div(order, self.indices.shape[-1], rounding_mode="floor")
        ordered = weights.flatten()[order]
        bags = embedding_bag(source, rows.flatten(0, 1), starts, mode="sum", per_sample_weights=ordered)
        return bags.view(-1, self.n, rows.shape[-1])

    def totals(self, weights: Tensor) -> Tensor:
        """See `Code`."""
        order, starts = self.by_latent
        return embedding_bag(order, weights.flatten()[:, None], starts, mode="sum").view(-1, self.n)

    def _bags(self, dictionary: Tensor, values: Tensor) -> Tensor:
        bags = embedding_bag(self.flat, dictionary.flatten(0, 1), mode="sum", per_sample_weights=values.flatten(0, 1))
        return bags.view(*values.shape[:2], -1)


def top(z: Tensor, k: int) -> Code:
    """The k largest entries of each row of z [s, b, n], negative ones as 0."""
    return chosen(*largest(z, k), z.shape[-1])


def chosen(values: Tensor, indices: Tensor, n: int) -> Code:
    """The latents at `indices` [s, b, k] out of n, negative values as 0; dense where matrix products are cheaper."""
    if n > DENSE * values.shape[-1]:
        return SparseCode(values.relu(), indices, n)
    return DenseCode(values.new_zeros(*values.shape[:2], n).scatter_(-1, indices, values.relu()))


def largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row of z [s, b, n] and their indices, unsorted.

    Where it pays, only the k groups of entries with the largest maxima are searched: they hold the k largest entries.
    """
    n = z.shape[-1]
    if n % GROUP or n < 2 * GROUP * k:
        return z.topk(k, sorted=False)
    groups = z.view(*z.shape[:2], GROUP, -1).amax(-2).topk(k, sorted=False).indices
    members = torch.arange(0, n, n // GROUP, device=z.device)
    candidates = (groups[..., None] + members).flatten(-2)
    values, places = z.gather(-1, candidates).topk(k, sorted=False)
    return values, candidates.gather(-1, places)
