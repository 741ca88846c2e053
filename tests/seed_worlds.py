"""Trained models whose truth is known, for tests and benchmarks of intervals: figures of pairs, and dictionaries.

The true mean of the figures is zero. The figure of a pair is the effect of one seed, plus that of the other, plus
noise of the pair. Effects have standard deviation 1, so that one seed's contribution to the mean over pairs has
standard deviation 2 (`SPREAD`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from husai_core.stability.intervals import Array, Statistic, pair_mean

EFFECTS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
    "pair noise only": lambda rng, n: np.zeros(n),
}
SPREAD, NOISE, SHARED = 2.0, 0.5, 0.5


def pairs(rng: np.random.Generator, effect: Array, noise: float = NOISE) -> Array:
    """The matrix [n, n] of pair figures of seeds with these effects [n]."""
    n = len(effect)
    upper = np.triu(rng.standard_normal((n, n)), 1) * noise
    matrix: Array = effect[:, None] + effect[None] + upper + upper.T
    return matrix


def single(rng: np.random.Generator, n: int, world: str) -> Statistic:
    """The mean over pairs, as a figure about its seeds."""
    return pair_mean(pairs(rng, EFFECTS[world](rng, n)))


def to_null(rng: np.random.Generator, n: int, world: str) -> Statistic:
    """The same less that of a control of every seed, whose effect has a correlation of `SHARED` with the seed's."""
    effect, other = EFFECTS[world](rng, n), EFFECTS[world](rng, n)
    control = SHARED * effect + (1 - SHARED**2) ** 0.5 * other
    return pair_mean(pairs(rng, effect)) - pair_mean(pairs(rng, control))


FIGURES = {"mean over pairs": single, "less paired null": to_null}


def planted(seeds: int, features: int, d: int, share: float, cosine: float = 1.0) -> list[Tensor]:
    """Dictionaries [features, d] with a share of their rows in common, the others Gaussian; the order differs.

    Two dictionaries' versions of a common row have this cosine, up to chance.
    """
    rng = torch.Generator().manual_seed(features)
    common = normalize(torch.randn(round(share * features), d, generator=rng), dim=1)
    dictionaries = []
    for _ in range(seeds):
        drawn = normalize(torch.randn(features, d, generator=rng), dim=1)
        drawn[: len(common)] *= (1 - cosine) ** 0.5
        drawn[: len(common)] += cosine**0.5 * common
        dictionaries.append(drawn[torch.randperm(features, generator=rng)])
    return dictionaries
