from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from husai_core.estimate import Estimate
from husai_core.stability.intervals import Independent, pair_mean, seed_mean, smallest
from tests.seed_worlds import EFFECTS, FIGURES, pairs


def covers(estimate: Estimate, truth: float = 0.0) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def least(repeats: int) -> float:
    """Three standard errors below the nominal coverage."""
    return 0.95 - 3 * float(np.sqrt(0.95 * 0.05 / repeats))


def pairs_as_if_independent(m: np.ndarray, rng: np.random.Generator) -> bool:
    """The percentile bootstrap over pairs that the earlier system used."""
    values = m[np.triu_indices(len(m), 1)]
    low, high = np.quantile(rng.choice(values, (400, len(values))).mean(1), [0.025, 0.975])
    return bool(low <= 0 <= high)


@pytest.mark.parametrize(("n", "repeats"), [(3, 400), (5, 400), (10, 120)])
def test_coverage_where_the_pair_bootstrap_fails(n: int, repeats: int) -> None:
    rng = np.random.default_rng(n)
    worlds = [pairs(rng, rng.standard_normal(n)) for _ in range(repeats)]
    assert np.mean([covers(pair_mean(m).estimate()) for m in worlds]) >= least(repeats)
    assert np.mean([pairs_as_if_independent(m, rng) for m in worlds]) < 0.65


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("world", EFFECTS)
@pytest.mark.parametrize("n", [3, 5, 8])
def test_coverage_whatever_the_effects_of_the_seeds(n: int, world: str, figure: str) -> None:
    rng = np.random.default_rng(n)
    coverage = np.mean([covers(FIGURES[figure](rng, n, world).estimate()) for _ in range(500)])
    least_skewed = 0.9 if n <= 5 else 0.88
    assert coverage >= (least_skewed if world == "skewed" else 0.93)


@pytest.mark.parametrize("n", [5, 10])
def test_coverage_of_a_difference_to_a_simulated_null(n: int) -> None:
    rng = np.random.default_rng(n)
    differences = [
        pair_mean(pairs(rng, rng.standard_normal(n))).minus(Independent(rng.normal(scale=0.8), 0.64, 199))
        for _ in range(120)
    ]
    assert np.mean([covers(difference.estimate()) for difference in differences]) >= least(120)


def test_paired_difference_uses_what_both_share() -> None:
    rng = np.random.default_rng(0)
    m = pairs(rng, rng.standard_normal(5))
    other = m + 1 + 0.01 * pairs(rng, rng.standard_normal(5))
    paired = (pair_mean(other) - pair_mean(m)).estimate()
    apart = pair_mean(other).minus(pair_mean(m).independent).estimate()
    assert paired.value == pytest.approx(apart.value)
    assert paired.high - paired.low < (apart.high - apart.low) / 20  # type: ignore[operator]


def test_mean_over_seeds_is_the_t_interval() -> None:
    values = [0.2, 0.5, 0.1, 0.9]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    estimate = seed_mean(values).estimate()
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))
    assert estimate.n == 4


def test_independent_groups_follow_welch() -> None:
    a, b = [0.9, 0.7, 0.8, 0.6, 0.75], [0.1, 0.5, 0.3]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    estimate = seed_mean(a).minus(seed_mean(b).independent).estimate()
    assert (estimate.low, estimate.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("n", [1, 2])
def test_unknown_below_three_seeds(n: int) -> None:
    estimate = seed_mean([0.5] * n).estimate()
    assert (estimate.value, estimate.low, estimate.high) == (0.5, None, None)
    assert pair_mean(np.full((n, n), 0.4)).estimate().low is None
    assert seed_mean([0.1, 0.2, 0.3]).minus(seed_mean([0.5] * n).independent).estimate().low is None


def test_no_pair_no_figure() -> None:
    assert pair_mean([[1.0]]).estimate().value is None
    broken = np.full((4, 4), 0.5)
    broken[0, 1] = broken[1, 0] = np.nan
    assert pair_mean(broken).estimate().value is None


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 12), st.integers(0, 10**6))
def test_the_value_is_the_mean_over_pairs_whatever_the_diagonal(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = pairs(rng, rng.standard_normal(n))
    statistic = pair_mean(m + np.diag([100.0] * n))
    assert statistic.value == pytest.approx(m[np.triu_indices(n, 1)].mean())
    without = np.delete(np.delete(m, 0, 0), 0, 1)
    assert statistic.jackknife[0] == pytest.approx(without[np.triu_indices(n - 1, 1)].mean())


def test_equal_seeds_give_a_point() -> None:
    for n in (5, 9):
        estimate = seed_mean([0.25] * n).estimate()
        assert (estimate.low, estimate.high) == (pytest.approx(0.25), pytest.approx(0.25))


def test_smallest_of_two_excesses() -> None:
    wide, narrow = Estimate(value=0.3, low=0.0, high=0.6, n=5), Estimate(value=0.2, low=0.15, high=0.25, n=5)
    assert smallest([wide, narrow]) == narrow.model_copy(update={"low": 0.0, "high": 0.25})
    assert smallest([wide, Estimate(value=0.1, n=2)]).low is None
    assert smallest([wide, Estimate(value=None)]).value is None
