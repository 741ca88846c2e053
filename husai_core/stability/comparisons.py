"""Differences between trainings that share their seeds, corrected for how many of them a study looks at."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from scipy import stats

from husai_core.stability.intervals import Statistic


def p_value(difference: Statistic) -> float | None:
    """Two-sided p-value of the hypothesis that a difference is zero: Student's t with the jackknife's variance.

    Of the mean of one difference per seed this is the paired t-test. It is below 0.05 exactly where the interval of
    `difference.estimate()` excludes zero. None where there are fewer than 3 seeds, or no figure.
    """
    variance, df = difference.total_variance
    if not (isfinite(difference.value) and isfinite(variance)):
        return None
    if variance == 0:
        return float(difference.value == 0)
    return float(2 * stats.t.sf(abs(difference.value) / variance**0.5, df))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for their number, so that the chance of any wrong rejection stays at the level (Holm 1979).

    A comparison whose p-value is unknown stays unknown, but counts: leaving it out would reward what failed.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        adjusted[place] = largest
    return adjusted
