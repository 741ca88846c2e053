"""Moments of rows that arrive in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from husai_core.activations.rank import spectrum_rank


class Moments:
    """Number, mean and scatter of all rows seen so far, in float64 on the device of the first block.

    Blocks are merged as in Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", so a large mean
    costs no precision.
    """

    def __init__(self) -> None:
        self.n, self.total_norm = 0, 0.0
        self.mean = self.scatter = torch.zeros(0, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Count a block of rows [m, d] in."""
        rows = rows.double()
        if not self.n:
            self.mean, self.scatter = rows.new_zeros(rows.shape[1]), rows.new_zeros(rows.shape[1], rows.shape[1])
        before, m, mean = self.n, len(rows), rows.mean(0)
        centred, step = rows - mean, mean - self.mean
        self.n += m
        self.scatter += centred.T @ centred + torch.outer(step, step) * (before * m / self.n)
        self.mean = self.mean + step * (m / self.n)
        self.total_norm += float(rows.norm(dim=1).sum())

    @property
    def variance(self) -> Tensor:
        """Variance per dimension [d], divided by the number of rows."""
        return self.scatter.diagonal() / self.n

    @property
    def mean_norm(self) -> float:
        """Mean Euclidean norm of a row."""
        return self.total_norm / self.n

    @property
    def effective_rank(self) -> float:
        """Effective rank of the centred rows."""
        return spectrum_rank(self.scatter)
