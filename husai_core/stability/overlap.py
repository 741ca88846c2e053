"""Overlap of two dictionaries by best match: every feature looks for its most similar partner, which it may share.

A dictionary is a matrix of rows [n, d]: decoder directions, or, for the activation-matched versions, the centred
activations of n latents on d held-out rows (`profiles`), whose cosine is their Pearson correlation. A row of length
zero (a latent that never fires) matches nothing: its cosine is 0.

Best matching is not one-to-one assignment; for that see `husai_core.stability.matching`. The two are never comparable
with each other, and neither is comparable between shapes without its null (`husai_core.stability.nulls`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from husai_core.stability.intervals import Statistic, pair_mean

TILE = 2048


@dataclass(frozen=True)
class Matches:
    """For every row of `a` [n] and of `b` [m], the largest |cosine| and the largest cosine in the other one."""

    of_a: Tensor
    of_b: Tensor
    signed_of_a: Tensor
    signed_of_b: Tensor

    @property
    def pwmcc(self) -> float:
        """See `pwmcc`."""
        return _symmetrised(self.of_a, self.of_b)

    @property
    def mmcs_signed(self) -> float:
        """Signed `mmcs`, averaged over both directions."""
        return _symmetrised(self.signed_of_a, self.signed_of_b)

    def shared_fraction(self, threshold: float) -> float:
        """See `shared_fraction`."""
        return _symmetrised((self.of_a > threshold).double(), (self.of_b > threshold).double())


def best_matches(a: Tensor, b: Tensor) -> Matches:
    """Best matches of all rows of `a` [n, d] and `b` [m, d], which need not have unit length.

    Works tile by tile, so that no matrix larger than `TILE` x `TILE` exists.
    """
    a, b = normalize(a, dim=1), normalize(b, dim=1)
    low = [a.new_full((len(rows),), torch.inf) for rows in (a, b)]
    high = [a.new_full((len(rows),), -torch.inf) for rows in (a, b)]
    for i in range(0, len(a), TILE):
        for j in range(0, len(b), TILE):
            cosines = a[i : i + TILE] @ b[j : j + TILE].T
            for side, at in enumerate((slice(i, i + TILE), slice(j, j + TILE))):
                low[side][at] = torch.minimum(low[side][at], cosines.amin(1 - side))
                high[side][at] = torch.maximum(high[side][at], cosines.amax(1 - side))
    of_a, of_b = (torch.maximum(top, -bottom) for bottom, top in zip(low, high, strict=True))
    return Matches(of_a, of_b, *high)


def pwmcc(a: Tensor, b: Tensor) -> float:
    """Symmetrised mean of maximum |cos|: the mean of `mmcs(a, b)` and `mmcs(b, a)`.

    Earlier reports call this PWMCC; it is not the assignment-based PW-MCC of Song et al. 2025.
    """
    return best_matches(a, b).pwmcc


def pair_statistic(decoders: Sequence[Tensor], on_pair: Callable[[int], None]) -> Statistic:
    """The mean of `pwmcc` over all pairs of decoders [n, d], as a figure about the seeds that they are of.

    `on_pair` is called after every pair with the number of pairs done.
    """
    pairs = np.eye(len(decoders))
    for done, (i, j) in enumerate(combinations(range(len(decoders)), 2), 1):
        pairs[i, j] = pairs[j, i] = pwmcc(decoders[i], decoders[j])
        on_pair(done)
    return pair_mean(pairs)


def mmcs(a: Tensor, b: Tensor, signed: bool = False) -> float:
    """Mean maximum cosine similarity from `a` to `b` (Sharkey et al. 2022): directed, absolute unless `signed`."""
    matches = best_matches(a, b)
    return _mean(matches.signed_of_a if signed else matches.of_a)


def shared_fraction(a: Tensor, b: Tensor, threshold: float = 0.7) -> float:
    """Share of features whose best |cos| in the other dictionary exceeds `threshold`, averaged over both directions."""
    return best_matches(a, b).shared_fraction(threshold)


def profiles(latents: Tensor) -> Tensor:
    """Latents [rows, n] as a dictionary [n, rows] of centred activations, so that a cosine is a correlation."""
    return (latents - latents.mean(0)).T.contiguous()


def activation_mcc(a: Tensor, b: Tensor) -> float:
    """Symmetrised mean of maximum correlation between two sets of `profiles` over the same rows.

    The activation matching of Li et al. 2016 (arXiv 1511.07543); signed, because latents are not negative.
    """
    return best_matches(a, b).mmcs_signed


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _symmetrised(of_a: Tensor, of_b: Tensor) -> float:
    return (_mean(of_a) + _mean(of_b)) / 2
