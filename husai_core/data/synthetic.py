"""Synthetic worlds whose true features are known: sparse positive combinations of fixed unit directions.

A world is the positive control of every stability figure (two good SAEs must agree on it); `structureless` rows,
which share its mean and covariance but are Gaussian, are the negative control (no direction is privileged).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.seeding import generator


@dataclass(frozen=True)
class World:
    """Features that fire independently: `x = sum_i fired_i * magnitude_i * features_i`.

    `features` [n_features, d_model] has unit rows, `probability` [n_features] is the chance that a feature fires,
    and a magnitude is uniform on `[low, high]`, both positive.
    """

    features: Tensor
    probability: Tensor
    low: float
    high: float

    def latents(self, n: int, seed: int) -> Tensor:
        """The true feature activations [n, n_features] of `n` rows."""
        source, shape = generator(seed, "latents"), (n, len(self.features))
        fired = torch.rand(shape, generator=source) < self.probability
        return fired * (self.low + (self.high - self.low) * torch.rand(shape, generator=source))

    def sample(self, n: int, seed: int) -> Tensor:
        """Rows [n, d_model] of the world."""
        return self.latents(n, seed) @ self.features

    def structureless(self, n: int, seed: int) -> Tensor:
        """Gaussian rows [n, d_model] with exactly the world's mean and covariance."""
        middle, square = (self.low + self.high) / 2, (self.low**2 + self.low * self.high + self.high**2) / 3
        mean = self.probability * middle
        sd = (self.probability * square - mean**2).sqrt()
        normal = torch.randn(n, len(self.features), generator=generator(seed, "structureless"))
        return (mean + sd * normal) @ self.features


def world(
    seed: int, n_features: int = 128, d_model: int = 64, active: float = 4.0, low: float = 0.5, high: float = 1.5
) -> World:
    """A world of random directions in which `active` features fire per row on average, all equally often."""
    directions = torch.randn(n_features, d_model, generator=generator(seed, "features"))
    features = directions / directions.norm(dim=1, keepdim=True)
    return World(features, torch.full((n_features,), active / n_features), low, high)
