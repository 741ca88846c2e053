"""How often each rule of `internal` passes although the true figure lies on its bar, through the service's own code.

One draw simulates what varies: effects of training seeds, normal or exponential, shared in part with the controls of
the same seeds, noise of pairs, and groups of sequences. The unfavourable end of the interval then lies beyond the bar
by chance alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from husai_core.benchmarks.against_random import against_random
from husai_core.estimate import Estimate
from husai_core.release.policy import StatisticRule, load
from husai_core.stability.halves import Doubled, Figure, Measured, excess, plain
from husai_core.stability.intervals import Array, Statistic, pair_mean, seed_mean
from husai_core.stability.nulls import Null
from husai_core.stability.pairwise import against_nulls, excesses
from tests.seed_worlds import EFFECTS, SHARED, pairs

SIZE = 0.01
"""Standard deviation of one seed's effect on an overlap or on a mean, as it is on language models."""
GROUPS, GROUP_SIZE, RANDOM = 32, 0.01, 3
"""Groups of sequences, the standard deviation of one, and random SAEs."""
CHANCE, LOWER, GAUSSIAN = 0.45, 0.30, Null(0.28, 0.0005, 200)
"""The largest chance level of an overlap, another trained one, and that of Gaussian dictionaries."""
Draw = Callable[[np.random.Generator, int, str], Estimate]


def bar(name: str) -> float:
    """The threshold of a rule of `internal`."""
    return next(
        rule.threshold for rule in load("internal").rules if isinstance(rule, StatisticRule) and rule.name == name
    )


class _Seeds:
    """Effects of `n` seeds, and of their controls, which share a part of them."""

    def __init__(self, rng: np.random.Generator, n: int, effects: str) -> None:
        self.rng, self.n, self.draw = rng, n, EFFECTS[effects]
        self.effect = self.draw(rng, n)

    def shared(self) -> Array:
        """Effects of a control of the same seeds [n]."""
        mixed: Array = SHARED * self.effect + (1 - SHARED**2) ** 0.5 * self.draw(self.rng, self.n)
        return mixed

    def overlap(self, level: float, effect: Array | None = None) -> Doubled[Statistic]:
        """An overlap of all pairs about a level; without an effect, of a control."""
        figures = pairs(self.rng, self.shared() if effect is None else effect)
        return Doubled(pair_mean(level + SIZE * figures))

    def mean(self, level: float) -> Figure:
        """A mean of one value per seed about a level."""
        return plain(Doubled(seed_mean(level + SIZE * self.effect)))


def _reconstruction(rng: np.random.Generator, n: int, effects: str) -> Estimate:
    return _Seeds(rng, n, effects).mean(bar("reconstruction")).whole.estimate()


def _benchmark(name: str, statistic: str, level: float, random: float) -> Draw:
    def draw(rng: np.random.Generator, n: int, effects: str) -> Estimate:
        text, figure = GROUP_SIZE * rng.standard_normal(GROUPS), statistic.removesuffix("_minus_random")
        saes = [_over_groups(rng, figure, text + level + SIZE * effect) for effect in EFFECTS[effects](rng, n)]
        controls = [_over_groups(rng, figure, text + random + SIZE * effect) for effect in rng.standard_normal(RANDOM)]
        return against_random(saes, controls)[statistic]

    return draw


def _over_groups(rng: np.random.Generator, figure: str, level: Array) -> dict[str, Statistic]:
    """A figure of one SAE over groups of sequences about levels [groups]."""
    values = level + GROUP_SIZE / 2 * rng.standard_normal(GROUPS)
    return {figure: Statistic(GROUPS, lambda w: w @ values / w.sum(1), unit="sequence group")}


def _stability(level: float, statistic: str) -> Draw:
    def draw(rng: np.random.Generator, n: int, effects: str) -> Estimate:
        seeds = _Seeds(rng, n, effects)
        controls = {"shuffled": seeds.overlap(LOWER), "covariance": seeds.overlap(CHANCE)}
        observed = seeds.overlap(level, seeds.effect)
        return against_nulls("pwmcc", observed, Doubled(GAUSSIAN), controls).statistics[statistic]

    return draw


def _transcoder(rng: np.random.Generator, n: int, effects: str) -> Estimate:
    seeds, share, measured = _Seeds(rng, n, effects), 0.4, Measured()
    above = []
    for above_chance in (share + bar("transcoder"), share):
        observed = seeds.overlap(CHANCE + above_chance * (1 - CHANCE), None if above else seeds.effect)
        above.append(excesses(observed, Doubled(GAUSSIAN), {"covariance": seeds.overlap(CHANCE)}, rescaled=True))
    measured.add_smallest("difference", [above[0][null].minus(above[1][null]) for null in above[0]])
    return measured.statistics["difference"]


def _ood(name: str) -> Draw:
    def draw(rng: np.random.Generator, n: int, effects: str) -> Estimate:
        seeds, measured = _Seeds(rng, n, effects), Measured()
        measured.add_largest("drop", [seeds.mean(bar(name)), _Seeds(rng, n, effects).mean(bar(name) / 2)], (-inf, inf))
        return measured.statistics["drop"]

    return draw


def _untrained(rng: np.random.Generator, n: int, effects: str) -> Estimate:
    seeds, measured = _Seeds(rng, n, effects), Measured()
    observed = seeds.overlap(CHANCE + bar("untrained_model"), seeds.effect)
    networks = [seeds.overlap(level) for level in (CHANCE, LOWER)]
    measured.add_smallest("difference", [excess(observed, network, paired=True) for network in networks])
    return measured.statistics["difference"]


def rules() -> dict[str, Draw]:
    """By rule, one interval about a figure on its bar."""
    rescaled = CHANCE + bar("stability.rescaled") * (1 - CHANCE)
    kl, loss, explained = bar("kl_recovered.random"), bar("loss_recovered"), bar("reconstruction.outliers")
    return {
        "reconstruction": _reconstruction,
        "reconstruction.outliers": _benchmark("reconstruction.outliers", "explained_variance", explained, 0.3),
        "loss_recovered": _benchmark("loss_recovered", "loss_recovered", loss, 0.8),
        "kl_recovered.random": _benchmark("kl_recovered.random", "kl_recovered_minus_random", 0.83 + kl, 0.83),
        "stability": _stability(CHANCE + bar("stability"), "pwmcc_excess"),
        "stability.rescaled": _stability(rescaled, "pwmcc_excess_rescaled"),
        "transcoder": _transcoder,
        "ood.reconstruction": _ood("ood.reconstruction"),
        "ood.probes": _ood("ood.probes"),
        "untrained_model": _untrained,
    }


def passes(name: str, estimates: Sequence[Estimate]) -> list[bool]:
    """Whether each interval clears the bar of a rule."""
    (rule,) = (rule for rule in load("internal").rules if rule.name == name)
    assert isinstance(rule, StatisticRule)
    ends = [getattr(estimate, rule.bound) for estimate in estimates]
    return [end >= rule.threshold if rule.op == ">=" else end <= rule.threshold for end in ends]
