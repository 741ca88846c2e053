"""Figures of an SAE on rows that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.saes.sae import SAE


@dataclass(frozen=True)
class Figures:
    """Quality of one SAE on the given rows."""

    explained_variance: float
    normalised_mse: float
    l0: float
    dead_fraction: float


def explained_variance(target: Tensor, prediction: Tensor) -> float:
    """1 - sum of squared errors / sum of squared deviations from the mean of `target`'s columns; NaN if constant."""
    target, error = target.double(), (target - prediction).double()
    return float(1 - error.square().sum() / (target - target.mean(0)).square().sum())


def normalised_mse(target: Tensor, prediction: Tensor) -> float:
    """Sum of squared errors / sum of squares of `target`."""
    return float((target - prediction).double().square().sum() / target.double().square().sum())


@torch.no_grad()
def evaluate(sae: SAE, rows: Tensor, targets: Tensor | None = None, batch_size: int = 8192) -> Figures:
    """Figures of `sae` on `rows` [n, d_in]; a transcoder is compared with `targets` [n, d_out].

    `l0` is the mean number of non-zero latents per row, `dead_fraction` the share of latents that are zero on all rows.
    """
    targets = rows if targets is None else targets
    predictions, active = [], torch.zeros(sae.d_sae, dtype=torch.long)
    for part in torch.split(rows, batch_size):
        latents = sae.encode(part)
        predictions.append(sae.decode(latents))
        active += (latents != 0).sum(0)
    prediction = torch.cat(predictions)
    return Figures(
        explained_variance=explained_variance(targets, prediction),
        normalised_mse=normalised_mse(targets, prediction),
        l0=float(active.sum()) / len(rows),
        dead_fraction=float((active == 0).double().mean()),
    )
