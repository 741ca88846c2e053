"""Overlap of two dictionaries by assignment: every feature gets a partner of its own."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize


def assignment(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the one-to-one assignment that maximises the summed similarity of [n, m]."""
    rows, columns = linear_sum_assignment(similarity.double().cpu().numpy(), maximize=True)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def pw_mcc(a: Tensor, b: Tensor) -> float:
    """PW-MCC of Song et al. 2025 (arXiv 2505.20254): mean |cos| under the best one-to-one assignment.

    Rows are features [n, d] and [m, d]. Where n and m differ, the mean is over the min(n, m) assigned pairs; NaN if
    there are none.
    """
    return _assigned_mean((normalize(a, dim=1) @ normalize(b, dim=1).T).abs())


def activation_pw_mcc(a: Tensor, b: Tensor) -> float:
    """Mean correlation of activation profiles under the one-to-one assignment that maximises it."""
    return _assigned_mean(normalize(a, dim=1) @ normalize(b, dim=1).T)


def _assigned_mean(similarity: Tensor) -> float:
    rows, columns = assignment(similarity)
    return float(similarity.cpu()[rows, columns].double().mean())
