from __future__ import annotations

import math

import pytest
from scipy import stats

from husai_core.release.power import t_quantile, units_needed


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30, 999])
@pytest.mark.parametrize("probability", [0.8, 0.975, 0.995])
def test_t_quantile_agrees_with_scipy(df: int, probability: float) -> None:
    assert t_quantile(probability, df) == pytest.approx(stats.t.ppf(probability, df), rel=1e-9)


def test_units_needed_give_the_power_by_simulation() -> None:
    n, deviation, distance = 5, 1.0, 0.9
    half_width = stats.t.ppf(0.975, n - 1) * deviation / math.sqrt(n)
    needed = units_needed(distance, half_width, n, 0.95)
    assert needed is not None
    draws = stats.norm.rvs(distance, deviation, size=(20_000, needed), random_state=1)
    error = draws.std(axis=1, ddof=1) / math.sqrt(needed)
    excluded = draws.mean(axis=1) - stats.t.ppf(0.975, needed - 1) * error > 0
    assert excluded.mean() == pytest.approx(0.8, abs=0.04)


def test_more_units_for_a_smaller_distance_and_none_when_hopeless() -> None:
    near, far = units_needed(0.02, 0.05, 5, 0.95), units_needed(0.04, 0.05, 5, 0.95)
    assert near is not None
    assert far is not None
    assert 5 < far < near
    assert units_needed(1e-4, 0.05, 5, 0.95) is None
