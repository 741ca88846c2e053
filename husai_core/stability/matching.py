"""Overlap of two dictionaries by assignment: every feature gets a partner of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from husai_core.stability import wide_matching

EXACT = 4096
"""Width up to which all pairs are candidates. Beyond, only the nearest are, and the error is bounded."""


@dataclass(frozen=True)
class Assigned:
    """Pairs of a one-to-one assignment: rows and columns int64 [k], and their similarities [k].

    `most` is what the sum of the similarities is at most under any assignment.
    """

    rows: Tensor
    columns: Tensor
    similarity: Tensor
    most: float

    @property
    def mean(self) -> float:
        """Mean similarity of the pairs; NaN if there are none."""
        return float(self.similarity.double().mean())

    @property
    def error(self) -> float:
        """How far at most the best mean can lie above this one; 0 where all pairs were candidates."""
        return max(0.0, self.most / len(self.rows) - self.mean) if len(self.rows) else 0.0


def exact(n: int, m: int) -> bool:
    """Whether the assignment of dictionaries of these widths is the best among all pairs."""
    return n * m <= EXACT**2


def assign(a: Tensor, b: Tensor, signed: bool = False) -> Assigned:
    """One-to-one partners of the rows of `a` [n, d] and `b` [m, d] with the largest sum of |cosines|.

    If `signed`, with the largest sum of cosines. Rows need not have unit length. Beyond `EXACT` x `EXACT` pairs the sum
    may miss the largest; `Assigned.error` says by how much at most.
    """
    a, b = normalize(a, dim=1), normalize(b, dim=1)
    if exact(len(a), len(b)):
        cosines = a @ b.T
        similarity = cosines if signed else cosines.abs()
        rows, columns = assignment(similarity)
        values = similarity.cpu()[rows, columns]
        return Assigned(rows, columns, values, float(values.double().sum()))
    if len(a) > len(b):
        turned = assign(b, a, signed)
        return Assigned(turned.columns, turned.rows, turned.similarity, turned.most)
    columns, values, most = wide_matching.solve(a, b, signed)
    return Assigned(torch.arange(len(a)), columns, values, most)


def assignment(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the one-to-one assignment that maximises the summed similarity of [n, m]."""
    rows, columns = linear_sum_assignment(similarity.double().cpu().numpy(), maximize=True)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def pw_mcc(a: Tensor, b: Tensor) -> float:
    """PW-MCC of Song et al. 2025 (arXiv 2505.20254): mean |cos| under the best one-to-one assignment.

    Rows are features [n, d] and [m, d]. Where n and m differ, the mean is over the min(n, m) assigned pairs; NaN if
    there are none. Beyond `EXACT` features see `assign`.
    """
    return assign(a, b).mean


def activation_pw_mcc(a: Tensor, b: Tensor) -> float:
    """Mean correlation of activation profiles under the one-to-one assignment that maximises it."""
    return assign(a, b, signed=True).mean
