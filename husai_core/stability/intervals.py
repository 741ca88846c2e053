"""Intervals that resample what varies: the training seed.

n trained models give n(n-1)/2 pairs, but pairs that share a model are dependent, so the pairs are never resampled as
if they were independent. A `Statistic` is a figure as a function of seed weights; weights of 0 and 1 leave seeds out
(jackknife) and counts repeat them (bootstrap). Figures about the same seeds are subtracted before that (`a - b`), so
their dependence is kept: an SAE, its shuffled control and its transcoder share a seed, hence the initial decoder and
the order of the rows. Terms from independent simulations or other seeds bring their own variance (`minus`).

Below 3 seeds the interval is unknown. Up to 7 it is the leave-one-seed-out jackknife with t quantiles, whose degrees
of freedom follow Welch and Satterthwaite when there are independent terms. From 8 on it is the BCa bootstrap (Efron
1987) over seeds, with its level widened for small n as Hesterberg (2015, arXiv 1411.5279) advises.
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
BOOTSTRAP_FROM = 8
RESAMPLES = 4000


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

    def estimate(self, bootstrap: bool = True) -> Estimate:
        """The figure with its 95 % interval; without `bootstrap` that of Student's t, however many seeds there are.

        The latter is the interval that excludes zero exactly where `comparisons.p_value` is below 0.05.
        """
        if not isfinite(self.value):
            return Estimate(value=None, n=self.n, unit=self.unit, method="cannot be computed")
        if not isfinite(self.total_variance[0]):
            return Estimate(value=self.value, n=self.n, unit=self.unit, method=f"unknown below 3 {self.unit}s")
        resampled = bootstrap and self.n >= BOOTSTRAP_FROM and self.unit == "seed"
        return self._bca() if resampled else self._t()

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

    def _t(self) -> Estimate:
        total, df = self.total_variance
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * total**0.5
        method = f"leave-one-{self.unit.replace(' ', '-')}-out jackknife, t quantile, {df:.3g} degrees of freedom"
        low, high = self.value - half, self.value + half
        return Estimate(value=self.value, low=low, high=high, n=self.n, unit=self.unit, method=method)

    def _bca(self) -> Estimate:
        rng = np.random.default_rng(0)
        draws = self.at(rng.multinomial(self.n, [1 / self.n] * self.n, size=RESAMPLES).astype(float))
        for term in self.terms:
            draws = draws - term.value + term.variance**0.5 * rng.standard_normal(RESAMPLES)
        draws = np.sort(draws[np.isfinite(draws)])
        below = (np.sum(draws < self.value) + np.sum(draws <= self.value)) / (2 * len(draws))
        z0 = stats.norm.ppf(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
        influence = self.jackknife.mean() - self.jackknife
        spread = float((influence**2).sum())
        acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
        z = z0 + (self.n / (self.n - 1)) ** 0.5 * stats.t.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], self.n - 1)
        low, high = np.sort(np.quantile(draws, stats.norm.cdf(z0 + z / (1 - acceleration * z))))
        method = f"BCa bootstrap over seeds, {RESAMPLES} resamples, level widened for small n"
        return Estimate(value=self.value, low=float(low), high=float(high), n=self.n, method=method)


def pair_mean(matrix: ArrayLike) -> Statistic:
    """The U-statistic of a symmetric matrix [n, n] of pair values; the diagonal is not read.

    A bootstrap resample weighs the pair of two different seeds by the product of their counts; a seed drawn twice
    makes no pair with itself.
    """
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
