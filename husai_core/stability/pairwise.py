"""Every overlap of every pair of sibling SAEs, over all and over alive features, and what is left above the nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from husai_core.estimate import Estimate
from husai_core.saes.sae import SAE
from husai_core.seeding import generator
from husai_core.stability.intervals import Array, Independent, Statistic, pair_mean, smallest
from husai_core.stability.matching import activation_pw_mcc, pw_mcc
from husai_core.stability.nulls import Null, gaussian
from husai_core.stability.overlap import activation_mcc, best_matches, profiles
from husai_core.stability.result_tables import Matrix

DECODER = ("pwmcc", "mmcs_signed", "shared_fraction_0_7", "pw_mcc")
ACTIVATION = ("activation_mcc", "activation_pw_mcc")
RANGES = {"mmcs_signed": (-1.0, 1.0), "activation_mcc": (-1.0, 1.0), "activation_pw_mcc": (-1.0, 1.0)}
"""Where a metric is no mean of shares or |cosines|, which lie in [0, 1], the values that it can take."""
SUFFIXES = {"": False, "_alive": True}
MOST_ROWS = 8192


@dataclass(frozen=True)
class PairwiseOverlaps:
    """SAEs that differ in their seed alone, and held-out rows [n, d_in] on which their latents are compared."""

    saes: Sequence[SAE]
    rows: Tensor

    @cached_property
    def latents(self) -> list[Tensor]:
        """Per member, latents [n, d_sae] of at most `MOST_ROWS` rows, drawn at random where there are more."""
        drawn = torch.randperm(len(self.rows), generator=generator(0, "battery"))[:MOST_ROWS].sort().values
        with torch.no_grad():
            return [sae.encode(self.rows[drawn]) for sae in self.saes]

    @cached_property
    def alive(self) -> list[Tensor]:
        """Per member, which latents fire on any of these rows [d_sae]."""
        return [(latents != 0).any(0) for latents in self.latents]

    @cached_property
    def matrices(self) -> dict[str, Matrix]:
        """Pair matrices of all metrics (see `DECODER`, `ACTIVATION`); a name ends in `_alive` over alive features."""
        n = len(self.saes)
        matrices = {name + suffix: _diagonal(n) for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES}
        for suffix, alive_only in SUFFIXES.items():
            masks = self.alive if alive_only else [torch.ones_like(mask) for mask in self.alive]
            decoders = [sae.decoder[mask] for sae, mask in zip(self.saes, masks, strict=True)]
            actives = [profiles(latents[:, mask]) for latents, mask in zip(self.latents, masks, strict=True)]
            for i, j in combinations(range(n), 2):
                for metric, value in _overlaps(decoders[i], decoders[j], actives[i], actives[j]).items():
                    matrix = matrices[metric + suffix]
                    matrix[i][j] = matrix[j][i] = value if isfinite(value) else None
        return matrices

    def statistic(self, metric: str) -> Statistic:
        """The mean of a metric over pairs, as a figure about the seeds."""
        return pair_mean([[torch.nan if v is None else v for v in row] for row in self.matrices[metric]])

    def gaussian(self, metric: str) -> Null:
        """Chance level of a decoder metric at the shape of this group; over alive features, at their mean number."""
        width, features = self.saes[0].W_dec.shape[1], self.saes[0].d_sae
        if metric.endswith("_alive"):
            features = round(sum(int(mask.sum()) for mask in self.alive) / len(self.alive))
        return gaussian(width, max(1, features))[metric.removesuffix("_alive")]


def against_nulls(
    metric: str, observed: Statistic, chance: Null | Statistic, controls: Mapping[str, Statistic], paired: bool = True
) -> dict[str, Estimate]:
    """A figure, its Gaussian null, its trained controls by name, and its excess over the largest of them all.

    Where controls share their seeds with what was observed, they are `paired`: a difference is one figure about these
    seeds.
    """
    least, most = value_range(metric)
    above = excesses(observed, chance, controls, paired)
    figures = {metric: observed, f"{metric}_gaussian_null": chance}
    figures |= {f"{metric}_{name}_null": control for name, control in controls.items()}
    excess = smallest([figure.estimate() for figure in above.values()])
    return {
        **{name: figure.estimate().within(least, most) for name, figure in figures.items()},
        f"{metric}_excess": excess.within(least - most, most - least),
    }


def rescaled_excess(
    observed: Statistic, chance: Null | Statistic, controls: Mapping[str, Statistic], paired: bool = True
) -> Estimate:
    """The excess as a share of what chance leaves, (x − null) / (1 − null), the smallest over all nulls.

    It is 0 at chance and 1 where all seeds agree, whatever the width, so that one bar means the same everywhere.
    """
    nulls = [control if paired else control.independent for control in controls.values()]
    figures = [_share_of_rest(observed, null) for null in (chance.independent, *nulls)]
    return smallest([figure.estimate() for figure in figures]).within(most=1)


def _share_of_rest(observed: Statistic, null: Statistic | Independent) -> Statistic:
    """(x − null) / (1 − null); the variance of an independent null is carried along by its slope."""

    def share(x: Array, level: Array | float) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(x - level, np.subtract(1.0, level))

    if isinstance(null, Statistic):
        return Statistic(observed.n, lambda w: share(observed.at(w), null.at(w)))
    rest = 1 - null.value
    slope = (observed.value - 1) / rest**2 if rest > 0 else np.nan
    term = Independent(0.0, slope**2 * null.variance, null.df)
    return Statistic(observed.n, lambda w: share(observed.at(w), null.value), (term,))


def value_range(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric can take."""
    return RANGES.get(metric.removesuffix("_alive"), (0.0, 1.0))


def excesses(
    observed: Statistic, chance: Null | Statistic, controls: Mapping[str, Statistic], paired: bool = True
) -> dict[str, Statistic]:
    """What is left of a figure above each of its nulls, by the null's name."""
    above = {name: observed.above(control, paired) for name, control in controls.items()}
    return {"gaussian": observed.minus(chance.independent), **above}


def _diagonal(n: int) -> Matrix:
    return [[1.0 if i == j else None for j in range(n)] for i in range(n)]


def _overlaps(a: Tensor, b: Tensor, active_a: Tensor, active_b: Tensor) -> dict[str, float]:
    """All metrics of one pair of dictionaries [n, d] and [m, d] with their activation profiles [n, r] and [m, r]."""
    if not len(a) or not len(b):
        return dict.fromkeys((*DECODER, *ACTIVATION), torch.nan)
    matches = best_matches(a, b)
    return {
        "pwmcc": matches.pwmcc,
        "mmcs_signed": matches.mmcs_signed,
        "shared_fraction_0_7": matches.shared_fraction(0.7),
        "pw_mcc": pw_mcc(a, b),
        "activation_mcc": activation_mcc(active_a, active_b),
        "activation_pw_mcc": activation_pw_mcc(active_a, active_b),
    }
