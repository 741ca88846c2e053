"""Intervals that resample what varies: the training seed.

n trained models give n(n-1)/2 pairs, but pairs that share a model are dependent, so the pairs are never resampled as
if they were independent. A `Statistic` is a figure as a function of seed weights, where a weight of 0 leaves a seed
out. Figures about the same seeds are subtracted before that (`a - b`), so
their dependence is kept: an SAE, its shuffled control and its transcoder share a seed, hence the initial decoder and
the order of the rows. Terms from independent simulations or other seeds bring their own variance (`minus`).

Below 3 seeds the interval is unknown. From 3 on it is the leave-one-seed-out jackknife (Arvesen 1969) with t quantiles,
whose degrees of freedom follow Welch and Satterthwaite when there are independent terms. What it covers is simulated
in `benchmarks/intervals.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from husai_core.estimate import Estimate

Array = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Independent:
    """A term estimated apart from the seeds: its value, the variance of that value, and its degrees of freedom."""

    value: float
    variance: float = 0.0
    df: float = inf


@dataclass(frozen=True)
class Statistic:
    """A figure about `n` seeds: `at` maps seed weights [r, n] to r values; `terms` were subtracted from it.

    Figures about one SAE have other units, such as groups of sequences, in place of seeds.
    """

    n: int
    at: Callable[[Array], Array]
    terms: tuple[Independent, ...] = ()
    unit: str = "seed"

    @property
    def value(self) -> float:
        """The figure with every seed once; NaN where it has none."""
        return float(self.at(np.ones((1, self.n)))[0]) - sum(term.value for term in self.terms)

    @property
    def jackknife(self) -> Array:
        """The figure without each seed in turn [n], independent terms left aside."""
        return self.at(1 - np.eye(self.n))

    @property
    def variance(self) -> float:
        """Jackknife variance, independent terms left aside; NaN below 3 seeds."""
        if self.n < 3:
            return float("nan")
        return float((self.n - 1) * self.jackknife.var())

    def __sub__(self, other: Statistic) -> Statistic:
        """The difference of two figures about the same seeds in the same order."""
        assert self.n == other.n
        negated = tuple(Independent(-term.value, term.variance, term.df) for term in other.terms)
        return Statistic(self.n, lambda w: self.at(w) - other.at(w), self.terms + negated, self.unit)

    def __neg__(self) -> Statistic:
        """The same figure with the other sign."""
        negated = tuple(Independent(-term.value, term.variance, term.df) for term in self.terms)
        return Statistic(self.n, lambda w: -self.at(w), negated, self.unit)

    def minus(self, term: Independent) -> Statistic:
        """The difference to an independent term."""
        return Statistic(self.n, self.at, (*self.terms, term), self.unit)

    @property
    def independent(self) -> Independent:
        """This figure as a term for figures about other seeds; of unknown variance below 3 seeds."""
        return Independent(self.value, self.variance, self.n - 1)

    def estimate(self) -> Estimate:
        """The figure with its 95 % interval, which excludes zero exactly where `comparisons.p_value` is below 0.05."""
        if not isfinite(self.value):
            return Estimate(value=None, n=self.n, unit=self.unit, method="cannot be computed")
        if not isfinite(self.total_variance[0]):
            return Estimate(value=self.value, n=self.n, unit=self.unit, method=f"unknown below 3 {self.unit}s")
        total, df = self.total_variance
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * total**0.5
        method = f"leave-one-{self.unit.replace(' ', '-')}-out jackknife, t quantile, {df:.3g} degrees of freedom"
        low, high = self.value - half, self.value + half
        return Estimate(value=self.value, low=low, high=high, n=self.n, unit=self.unit, method=method)

    @property
    def total_variance(self) -> tuple[float, float]:
        """The variance with that of the independent terms, and its degrees of freedom (Welch and Satterthwaite).

        The variance is NaN below 3 seeds.
        """
        variances = [self.variance, *(term.variance for term in self.terms)]
        dfs = [self.n - 1, *(term.df for term in self.terms)]
        total = sum(variances)
        below = sum(variance**2 / df for variance, df in zip(variances, dfs, strict=True) if df)
        return total, total**2 / below if below > 0 else self.n - 1


def pair_mean(matrix: ArrayLike) -> Statistic:
    """The U-statistic of a symmetric matrix [n, n] of pair values; the diagonal is not read."""
    pairs = np.array(matrix, dtype=float)
    np.fill_diagonal(pairs, 0)
    n = len(pairs)

    def at(w: Array) -> Array:
        with np.errstate(invalid="ignore"):
            mean: Array = ((w @ pairs) * w).sum(1) / (w.sum(1) ** 2 - (w**2).sum(1))
        return mean

    return Statistic(n, at)


def seed_mean(values: Sequence[float]) -> Statistic:
    """The mean of one value per seed."""
    array = np.array(values, dtype=float)
    return Statistic(len(array), lambda w: w @ array / w.sum(1))


def average(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several figures about the same units."""
    first = statistics[0]
    assert all((s.n, s.unit, s.terms) == (first.n, first.unit, ()) for s in statistics)
    return Statistic(first.n, lambda w: np.mean([s.at(w) for s in statistics], axis=0), unit=first.unit)


def smallest(estimates: Sequence[Estimate]) -> Estimate:
    """The smallest of several figures, for an excess over the largest of several nulls.

    Its interval runs from the smallest lower to the smallest upper end. It errs on neither side more often than the
    single intervals do: it lies above the smallest figure only if that figure's own interval does, and likewise below
    (the intersection-union principle, Berger 1982).
    """
    least = min(estimates, key=lambda estimate: inf if estimate.value is None else estimate.value)
    lows, highs = [e.low for e in estimates if e.low is not None], [e.high for e in estimates if e.high is not None]
    if any(e.value is None for e in estimates):
        return Estimate(value=None, n=least.n, method="cannot be computed")
    if min(len(lows), len(highs)) < len(estimates):
        return least.model_copy(update={"low": None, "high": None})
    return least.model_copy(update={"low": min(lows), "high": min(highs)})
