"""Figures of trainings at the whole and at half the budget: what the last doubling of the tokens changed.

Whole and half are compared within a seed before anything is taken over seeds, of what is observed and of its controls
alike, so that what they share drops out. Above a null the change is (x - null at the whole) - (x - null at half).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from husai_core.estimate import Estimate
from husai_core.stability.intervals import Array, Independent, Statistic, average, smallest
from husai_core.stability.nulls import Null

Level = Statistic | Null
T = TypeVar("T", bound=Level, covariant=True)


@dataclass(frozen=True)
class Doubled(Generic[T]):
    """A figure at the whole budget, and at half where that was measured."""

    whole: T
    half: T | None = None


class Figure(NamedTuple):
    """A figure at the whole budget, and its change by the last doubling where that is known."""

    whole: Statistic
    change: Statistic | None

    @property
    def negated(self) -> Figure:
        """The same with the other sign."""
        return Figure(-self.whole, None if self.change is None else -self.change)

    def minus(self, other: Figure) -> Figure:
        """The difference of two figures about the same seeds."""
        whole = self.whole - other.whole
        if self.change is None or other.change is None:
            return Figure(whole, None)
        return Figure(whole, self.change - other.change)


@dataclass(frozen=True)
class Draws:
    """A figure about the same seeds on several draws of what varies besides, such as untrained networks."""

    drawn: Sequence[Doubled[Statistic]]

    @property
    def mean(self) -> Doubled[Statistic]:
        """The mean over draws, as a figure about the seeds."""
        halves = [doubled.half for doubled in self.drawn if doubled.half is not None]
        whole = average([doubled.whole for doubled in self.drawn])
        return Doubled(whole, average(halves) if len(halves) == len(self.drawn) else None)

    def spread(self, figure: Figure, factor: float = 1.0) -> Figure:
        """A figure made of the mean, with the spread of the draws in its interval; `factor` is its slope in the mean.

        From two draws on; a single one says nothing of others. The spread holds some of the seeds' as well, which
        makes the interval too wide rather than too narrow.
        """
        figures = [plain(doubled) for doubled in self.drawn]
        whole = figure.whole.minus(_between([single.whole for single in figures], factor))
        changes = [single.change for single in figures if single.change is not None]
        change = figure.change and figure.change.minus(_between(changes, factor))
        return Figure(whole, change)


def _between(draws: Sequence[Statistic], factor: float) -> Independent:
    """What the draws add to the variance of their mean."""
    if len(draws) < 2:
        return Independent(0.0)
    values = np.array([draw.value for draw in draws])
    return Independent(0.0, float(factor**2 * values.var(ddof=1)) / len(draws), len(draws) - 1)


def plain(observed: Doubled[Statistic]) -> Figure:
    """A figure as it is."""
    return Figure(observed.whole, None if observed.half is None else observed.whole - observed.half)


def excess(observed: Doubled[Statistic], null: Doubled[Level], paired: bool) -> Figure:
    """What is left of a figure above a null; `paired` where both are about the same seeds."""
    if paired and isinstance(null.whole, Statistic) and not isinstance(null.half, Null):
        return plain(observed).minus(plain(Doubled(null.whole, null.half)))
    whole = observed.whole.minus(null.whole.independent)
    if observed.half is None or null.half is None:
        return Figure(whole, None)
    return Figure(whole, (observed.whole - observed.half).minus(_difference(null.whole, null.half)))


def rescaled_excess(observed: Doubled[Statistic], null: Doubled[Level], paired: bool) -> Figure:
    """What is left of a figure above a null, as a share of what the null leaves: (x - null) / (1 - null).

    Over seeds that both share, the jackknife is that of the ratio. The uncertainty of another null enters by the delta
    method: its standard error times (1 - x) / (1 - null)².
    """
    whole, slope = _ratio(observed.whole, null.whole, paired)
    if observed.half is None or null.half is None:
        return Figure(whole.minus(_uncertainty(_scaled(null.whole, slope))), None)
    half, half_slope = _ratio(observed.half, null.half, paired)
    of_change = _difference(null.whole, null.half, slope, half_slope)
    return Figure(whole.minus(_uncertainty(_scaled(null.whole, slope))), (whole - half).minus(_uncertainty(of_change)))


def _ratio(observed: Statistic, null: Level, paired: bool) -> tuple[Statistic, float]:
    """The rescaled excess, and how fast it falls with a null that is about other seeds (0 where it is not)."""
    if paired and isinstance(null, Statistic):
        return Statistic(observed.n, lambda w: _share(observed.at(w), null.at(w))), 0.0
    level = null.independent.value
    slope = (1 - observed.value) / (1 - level) ** 2 if level < 1 else float("nan")
    return Statistic(observed.n, lambda w: _share(observed.at(w), np.full(len(w), level))), slope


def _share(observed: Array, null: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        share: Array = (observed - null) / (1 - null)
    return share


def _scaled(null: Level, factor: float) -> Independent:
    term = null.independent
    return Independent(factor * term.value, factor**2 * term.variance, term.df)


def _uncertainty(term: Independent) -> Independent:
    """The term without its value."""
    return replace(term, value=0.0)


def _difference(whole: Level, half: Level, a: float = 1.0, b: float = 1.0) -> Independent:
    """`a` times a null at the whole budget less `b` times that at half, as a term for figures about other seeds."""
    if isinstance(whole, Statistic) and isinstance(half, Statistic):
        return Statistic(whole.n, lambda w: a * whole.at(w) - b * half.at(w)).independent
    if whole == half:
        return _scaled(whole, a - b)
    first, second = _scaled(whole, a), _scaled(half, b)
    return Independent(first.value - second.value, first.variance + second.variance, min(first.df, second.df))


@dataclass
class Measured:
    """The statistics of a result, and by their names what the last doubling changed."""

    statistics: dict[str, Estimate] = field(default_factory=dict)
    changes: dict[str, Estimate] = field(default_factory=dict)

    def add(self, name: str, figure: Figure, values: tuple[float, float] = (-inf, inf)) -> None:
        """A figure; `values` are the least and the largest that it can take."""
        self.statistics[name] = figure.whole.estimate().within(*values)
        if figure.change is not None:
            self.changes[name] = figure.change.estimate().within(values[0] - values[1], values[1] - values[0])

    def extend(self, other: Measured, rename: Callable[[str], str] = str) -> None:
        """All that another one holds, under other names if asked."""
        self.statistics |= {rename(name): estimate for name, estimate in other.statistics.items()}
        self.changes |= {rename(name): change for name, change in other.changes.items()}

    def add_smallest(self, name: str, figures: Sequence[Figure], values: tuple[float, float] = (-inf, inf)) -> None:
        """The smallest of several figures, such as the excess over the largest of several nulls."""
        self.statistics[name] = smallest([figure.whole.estimate() for figure in figures]).within(*values)
        changes = [figure.change for figure in figures if figure.change is not None]
        if len(changes) == len(figures):
            change = change_of_smallest([figure.whole.value for figure in figures], changes)
            self.changes[name] = change.within(values[0] - values[1], values[1] - values[0])

    def add_largest(self, name: str, figures: Sequence[Figure], values: tuple[float, float] = (-inf, inf)) -> None:
        """The largest of several figures."""
        turned = Measured()
        turned.add_smallest(name, [figure.negated for figure in figures], (-values[1], -values[0]))
        self.statistics[name] = _negated(turned.statistics[name])
        if name in turned.changes:
            self.changes[name] = _negated(turned.changes[name])


def _negated(estimate: Estimate) -> Estimate:
    value, low, high = (None if end is None else -end for end in (estimate.value, estimate.high, estimate.low))
    return estimate.model_copy(update={"value": value, "low": low, "high": high})


def change_of_smallest(whole: Sequence[float], changes: Sequence[Statistic]) -> Estimate:
    """What the last doubling changed of the smallest of several figures, from these at the whole and their changes.

    It is the smallest at the whole less the smallest at half, even if they are two figures, as where another null is
    the largest by then. That difference lies between the changes of the two, so the interval covers both of theirs.
    """
    half = [value - change.value for value, change in zip(whole, changes, strict=True)]
    if not all(map(isfinite, half)):
        return Estimate(value=None, n=changes[0].n, method="cannot be computed")
    at_whole, at_half = whole.index(min(whole)), half.index(min(half))
    first, second = (changes[place].estimate() for place in (at_whole, at_half))
    change = first.model_copy(update={"value": whole[at_whole] - half[at_half]})
    if None in (first.low, first.high, second.low, second.high):
        return change.model_copy(update={"low": None, "high": None})
    ends = [end for end in (first.low, first.high, second.low, second.high) if end is not None]
    return change.model_copy(update={"low": min(ends), "high": max(ends)})
