from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from husai_core.stability.comparisons import holm, p_value
from husai_core.stability.intervals import Independent, seed_mean

A, B = [0.5, 0.7, 0.6, 0.9], [0.4, 0.5, 0.7, 0.6]


def test_the_p_value_of_a_mean_difference_is_that_of_the_paired_t_test() -> None:
    assert p_value(seed_mean(A) - seed_mean(B)) == pytest.approx(stats.ttest_rel(A, B).pvalue)


@pytest.mark.parametrize(("values", "expected"), [([0.1, 0.2], None), ([0.3] * 4, 0.0), ([0.0] * 4, 1.0)])
def test_p_values_at_the_edges(values: list[float], expected: float | None) -> None:
    assert p_value(seed_mean(values)) == expected


@pytest.mark.parametrize("n", [3, 7, 8, 12])
def test_the_t_interval_excludes_zero_exactly_where_the_p_value_is_below_its_level(n: int) -> None:
    rng = np.random.default_rng(n)
    differs = []
    for _ in range(200):
        difference = seed_mean(list(rng.exponential(size=n) - 0.5))
        estimate, p = difference.estimate(), p_value(difference)
        assert estimate.low is not None
        assert estimate.high is not None
        assert p is not None
        differs.append(p < 0.05)
        assert differs[-1] == (not estimate.low <= 0 <= estimate.high)
    assert 0 < sum(differs) < 200


def test_independent_terms_count_in_the_p_value_as_in_the_interval() -> None:
    certain, vague = seed_mean(A).minus(Independent(0.0)), seed_mean(A).minus(Independent(0.0, 0.2, 3))
    assert p_value(certain) == pytest.approx(stats.ttest_1samp(A, 0).pvalue)
    low, p = vague.estimate().low, p_value(vague)
    assert low is not None
    assert p is not None
    assert low < 0
    assert p > 0.05


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_unknown_comparison_counts() -> None:
    assert holm([0.02, None]) == [0.04, None]
