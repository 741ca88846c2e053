"""The kernels in torch, for the CPU: they need no compiler."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag
from torch.optim.adam import adam

from husai_core.saes.kernels import BETAS, EPSILON

TILE = 1 << 23
"""Pre-activations that are held at once: they stay in cache until the selection has read them."""
MOST_ROWS = 512
SLACK = 0.9
"""How far below the guessed smallest value of a batch's largest the search begins."""
SUM = 0


class TorchCPU:
    """See `Kernels`."""

    name = "torch-cpu"
    block = 1 << 18
    """Gradients and moments of so many weights stay in cache."""

    def top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        shape = (len(encoder), x.shape[1], k)
        values, latents = x.new_empty(shape), torch.empty(shape, dtype=torch.int32, device=x.device)
        for members, rows, z in tiles(x, encoder, bias):
            chosen, places = self.largest(z, k)
            values[members, rows] = chosen.transpose(0, 1)
            latents[members, rows] = places.transpose(0, 1).int()
        return values, latents + _offsets(encoder)

    def largest(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        return largest(z, k)

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Kernels`."""
        s, n, _ = encoder.shape
        b = x.shape[1]
        pieces: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in range(s)]
        for members, rows, z in tiles(x, encoder, bias):
            for i, member in enumerate(range(s)[members]):
                row, latent = (z[:, i] > threshold[member]).nonzero(as_tuple=True)
                row_of = row + (member * b + rows.start)
                pieces[member].append((z[row, i, latent], (latent + member * n).int(), row_of))
        values, latents, row_of = (torch.cat(column) for column in zip(*chain.from_iterable(pieces), strict=True))
        return values, latents, starts_of(row_of, s * b)

    def batch_top(
        self, x: Tensor, encoder: Tensor, bias: Tensor, count: int, guess: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Kernels`; the search goes on below the guess where that was too high."""
        b = x.shape[1]
        bound = ((_first_guess(x, encoder, bias, count) if guess is None else guess) * SLACK).clamp(min=0)
        while True:
            values, latents, starts = self.above(x, encoder, bias, bound)
            ends = starts[b::b]
            short = (ends.diff(prepend=ends.new_zeros(1)) < count) & (bound > 0)
            if not short.any():
                break
            bound = torch.where(short, bound / 2 - 1e-6, bound).clamp(min=0)
        kept, smallest = _largest_of_each(values, ends.tolist(), count)
        return values[kept], latents[kept], torch.searchsorted(kept, starts.long()).int(), smallest

    def decode(self, values: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        return _bags(latents, dictionary, starts, values)

    def dots(self, rows: Tensor, row_of: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """See `Kernels`."""
        backward = torch.ops.aten._embedding_bag_per_sample_weights_backward
        products: Tensor = backward(rows, dictionary, latents, starts, row_of, SUM)
        return products

    def transpose(self, latents: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        count = len(latents)
        positions, ends = np.arange(count, dtype=np.int32), np.arange(count + 1, dtype=np.int32)
        columns = csr_array((positions, latents.numpy(), ends), shape=(count, n)).tocsc()
        return torch.from_numpy(columns.indices), torch.from_numpy(columns.indptr)

    def outer(self, weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
        """See `Kernels`."""
        entries = slice(int(starts[0]), int(starts[-1]))
        return _bags(source[entries], rows, starts - starts[0], weights[entries])

    def adam(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: float, step: int, unit: bool
    ) -> None:
        """See `Kernels`."""
        if unit:
            gradient.addcmul_(torch.linalg.vecdot(gradient, weights)[:, None], weights, value=-1)
        adam(
            [weights],
            [gradient],
            [moments[0]],
            [moments[1]],
            max_exp_avg_sqs=[],
            state_steps=[torch.tensor(step - 1.0, device=weights.device)],
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        if unit:
            weights.div_(torch.linalg.vector_norm(weights, dim=-1, keepdim=True))


def tiles(x: Tensor, encoder: Tensor, bias: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Pre-activations in pieces that fit the cache: members, rows, and z [rows, members, n], valid until the next.

    One stream for all members is one matrix product per piece.
    """
    s, n, d = encoder.shape
    together = s if len(x) == 1 else 1
    count = max(1, min(MOST_ROWS, TILE // (together * n)))
    buffer = x.new_empty(count, together * n)
    for first in range(0, s, together):
        members = slice(first, first + together)
        weights, offset = encoder[members].reshape(-1, d).T, bias[members].reshape(-1)
        stream = x[first] if len(x) > 1 else x[0]
        for start in range(0, len(stream), count):
            block = stream[start : start + count]
            z = torch.addmm(offset, block, weights, out=buffer[: len(block)])
            yield members, slice(start, start + len(block)), z.view(len(block), together, n)


def largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of the last axis and their indices, unsorted.

    The k groups with the largest maxima hold the k largest entries, so only those are searched.
    """
    n = z.shape[-1]
    size = 1
    while n % (2 * size) == 0 and 4 * size * size * k <= n:
        size *= 2
    if size == 1:
        return z.topk(k, sorted=False)
    groups = z.view(*z.shape[:-1], size, -1).amax(-2).topk(k, sorted=False).indices
    candidates = (groups[..., None] + torch.arange(0, n, n // size, device=z.device)).flatten(-2)
    values, places = z.gather(-1, candidates).topk(k, sorted=False)
    return values, candidates.gather(-1, places)


def starts_of(indices: Tensor, n: int) -> Tensor:
    """Where each of the values 0 to n - 1 begins in ascending `indices`, and where the last ends: int32 [n + 1]."""
    return torch.searchsorted(indices, torch.arange(n + 1, dtype=indices.dtype, device=indices.device), out_int32=True)


def expand(starts: Tensor, count: int) -> Tensor:
    """Which interval each of `count` positions lies in: [0, 2, 3] becomes [0, 0, 1]."""
    numbers = torch.arange(len(starts) - 1, dtype=torch.int32, device=starts.device)
    return numbers.repeat_interleave(starts.diff().long(), output_size=count)


def _first_guess(x: Tensor, encoder: Tensor, bias: Tensor, count: int) -> Tensor:
    """Each member's smallest value [s] among the largest of the first rows, which get their share of `count`."""
    guess = x.new_zeros(len(encoder))
    for members, rows, z in tiles(x, encoder, bias):
        if rows.start == 0:
            share = max(1, len(z) * count // x.shape[1])
            for i, member in enumerate(range(len(encoder))[members]):
                guess[member] = z[:, i].flatten().topk(share).values[-1]
    return guess


def _largest_of_each(values: Tensor, ends: list[int], count: int) -> tuple[Tensor, Tensor]:
    """Positions of the largest `count` entries of each member, in order, and the smallest value among them.

    `ends` says where each member's entries end.
    """
    kept, smallest = [], []
    for start, end in zip([0, *ends], ends, strict=False):
        entries = values[start:end]
        chosen = entries.topk(min(count, len(entries)), sorted=False)
        kept.append(chosen.indices.sort().values + start)
        smallest.append(float(chosen.values.min()) if len(entries) else 0.0)
    return torch.cat(kept), torch.tensor(smallest, dtype=torch.float64)


def _offsets(encoder: Tensor) -> Tensor:
    s, n, _ = encoder.shape
    return torch.arange(0, s * n, n, dtype=torch.int32, device=encoder.device)[:, None, None]


def _bags(indices: Tensor, rows: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return embedding_bag(indices, rows, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)
