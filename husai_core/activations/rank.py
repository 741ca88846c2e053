"""Effective rank."""

from __future__ import annotations

import torch
from torch import Tensor


def effective_rank(rows: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values of the centred rows [n, d]; every row counts.

    Roy & Vetterli 2007, "The effective rank". Rows that are all equal have rank 0.
    """
    centred = rows.double() - rows.double().mean(0)
    return spectrum_rank(centred.T @ centred)


def spectrum_rank(scatter: Tensor) -> float:
    """The effective rank of centred rows X, given their scatter matrix XᵀX float64 [d, d]."""
    singular = torch.linalg.eigvalsh(scatter).clamp(min=0).sqrt()
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())
