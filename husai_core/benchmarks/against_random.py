"""Figures of SAEs beside those of random SAEs of the same shape and L0, with intervals over all that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from husai_core.benchmarks.ranges import value_range
from husai_core.estimate import Estimate
from husai_core.stability.intervals import Independent, Statistic, average, seed_mean

Figures = Mapping[str, Statistic]
"""By name, figures about groups of sequences."""


def against_random(saes: Sequence[Figures], random: Sequence[Figures]) -> dict[str, Estimate]:
    """Each figure of the SAEs, that of the random SAEs (`_random`), and their difference (`_minus_random`).

    The sequences are the same for all, so that a difference is taken within each of them. The interval about one SAE is
    over sequences; about several it is over their seeds, and the variance over sequences is added. The random SAEs'
    seeds are independent of both.
    """
    statistics = dict[str, Estimate]()
    for name in saes[0]:
        measured, control = ([figures[name] for figures in group] for group in (saes, random))
        least, most = value_range(name)
        differences = [figure - average(control) for figure in measured]
        of_random = seed_mean([figure.value for figure in control])
        added = [] if len(saes) == 1 else ["sequences"]
        statistics[name] = _estimate(mean(measured), added).within(least, most)
        statistics[f"{name}_random"] = _estimate(mean(control), ["sequences"]).within(least, most)
        difference = mean(differences).minus(Independent(0.0, of_random.variance, of_random.n - 1))
        over_all = _estimate(difference, [*added, "random SAEs"])
        statistics[f"{name}_minus_random"] = over_all.within(least - most, most - least)
    return statistics


def _estimate(statistic: Statistic, added: Sequence[str]) -> Estimate:
    """The estimate of a figure, whose method says of which `added` units the variance is in the interval, too."""
    estimate = statistic.estimate()
    if not added or estimate.low is None:
        return estimate
    return estimate.model_copy(update={"method": f"{estimate.method}, variance over {' and '.join(added)} added"})


def mean(figures: Sequence[Statistic]) -> Statistic:
    """The mean of one figure over SAEs that were measured on the same sequences."""
    if len(figures) == 1:
        return figures[0]
    over_sequences = average(figures)
    variance = Independent(0.0, over_sequences.variance, over_sequences.n - 1)
    return seed_mean([figure.value for figure in figures]).minus(variance)
