"""Every overlap of every pair of sibling SAEs, over all and over alive features, and what is left above the nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import inf, isfinite

import torch
from torch import Tensor

from husai_core.saes.sae import SAE
from husai_core.seeding import generator
from husai_core.stability.halves import Doubled, Figure, Level, Measured, excess, plain, rescaled_excess
from husai_core.stability.intervals import Statistic, pair_mean
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

    @property
    def latents(self) -> list[Tensor]:
        """Per member, latents [n, d_sae] of at most `MOST_ROWS` rows, drawn at random where there are more."""
        drawn = torch.randperm(len(self.rows), generator=generator(0, "battery"))[:MOST_ROWS].sort().values
        with torch.no_grad():
            return [sae.encode(self.rows[drawn]) for sae in self.saes]

    @property
    def alive(self) -> list[Tensor]:
        """Per member, which latents fire on any of these rows [d_sae]."""
        return self._compared[0]

    @property
    def matrices(self) -> dict[str, Matrix]:
        """Pair matrices of all metrics (see `DECODER`, `ACTIVATION`); a name ends in `_alive` over alive features."""
        return self._compared[1]

    @cached_property
    def _compared(self) -> tuple[list[Tensor], dict[str, Matrix]]:
        """`alive` and `matrices`, so that the latents are held no longer than it takes to compare them."""
        n, latents = len(self.saes), self.latents
        alive = [(values != 0).any(0) for values in latents]
        matrices = {name + suffix: _diagonal(n) for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES}
        for suffix, alive_only in SUFFIXES.items():
            masks = alive if alive_only else [torch.ones_like(mask) for mask in alive]
            decoders = [sae.decoder[mask] for sae, mask in zip(self.saes, masks, strict=True)]
            actives = [profiles(values[:, mask]) for values, mask in zip(latents, masks, strict=True)]
            for i, j in combinations(range(n), 2):
                for metric, value in _overlaps(decoders[i], decoders[j], actives[i], actives[j]).items():
                    matrix = matrices[metric + suffix]
                    matrix[i][j] = matrix[j][i] = value if isfinite(value) else None
        return alive, matrices

    def statistic(self, metric: str) -> Statistic:
        """The mean of a metric over pairs, as a figure about the seeds."""
        return pair_mean([[torch.nan if v is None else v for v in row] for row in self.matrices[metric]])

    def gaussian(self, metric: str) -> Null:
        """Chance level of a decoder metric at the shape of this group; over alive features, at their mean number."""
        width, features = self.saes[0].W_dec.shape[1], self.saes[0].d_sae
        if metric.endswith("_alive"):
            features = round(sum(int(mask.sum()) for mask in self.alive) / len(self.alive))
        return gaussian(width, max(1, features))[metric.removesuffix("_alive")]


@dataclass(frozen=True)
class DoubledOverlaps:
    """The overlaps of a group of trainings at the whole budget, and at half where all were measured there."""

    whole: PairwiseOverlaps
    half: PairwiseOverlaps | None

    @classmethod
    def of(cls, saes: Sequence[SAE], halves: Sequence[SAE], rows: Tensor) -> DoubledOverlaps:
        """Of SAEs and their halves (none where they have none), compared on the same rows [n, d_in]."""
        return cls(PairwiseOverlaps(saes, rows), PairwiseOverlaps(halves, rows) if halves else None)

    def statistic(self, metric: str) -> Doubled[Statistic]:
        """The mean of a metric over pairs, as a figure about the seeds."""
        return Doubled(self.whole.statistic(metric), self.half.statistic(metric) if self.half else None)

    def gaussian(self, metric: str) -> Doubled[Null]:
        """Chance level of a decoder metric; over alive features their number may differ between whole and half."""
        return Doubled(self.whole.gaussian(metric), self.half.gaussian(metric) if self.half else None)


def against_nulls(
    metric: str,
    observed: Doubled[Statistic],
    chance: Doubled[Level],
    controls: Mapping[str, Doubled[Statistic]],
    paired: bool = True,
) -> Measured:
    """A figure, its Gaussian null, its trained controls by name, and its excess over the largest of them all.

    The excess comes plain and rescaled (see `rescaled_excess`). Where controls share their seeds with what was
    observed, they are `paired`: a difference is one figure about these seeds.
    """
    measured, values = Measured(), value_range(metric)
    most = values[1] - values[0]
    measured.add(metric, plain(observed), values)
    measured.statistics[f"{metric}_gaussian_null"] = chance.whole.estimate().within(*values)
    for name, control in controls.items():
        measured.add(f"{metric}_{name}_null", plain(control), values)
    above = [excesses(observed, chance, controls, paired, rescaled).values() for rescaled in (False, True)]
    measured.add_smallest(f"{metric}_excess", [*above[0]], (-most, most))
    measured.add_smallest(f"{metric}_excess_rescaled", [*above[1]], (-inf, 1.0))
    return measured


def value_range(metric: str) -> tuple[float, float]:
    """The least and the largest value that a metric can take."""
    return RANGES.get(metric.removesuffix("_alive"), (0.0, 1.0))


def excesses(
    observed: Doubled[Statistic],
    chance: Doubled[Level],
    controls: Mapping[str, Doubled[Statistic]],
    paired: bool = True,
    rescaled: bool = False,
) -> dict[str, Figure]:
    """What is left of a figure above each of its nulls, by the null's name; `rescaled` as in `rescaled_excess`."""
    left = rescaled_excess if rescaled else excess
    above = {name: left(observed, control, paired) for name, control in controls.items()}
    return {"gaussian": left(observed, chance, paired=False), **above}


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
