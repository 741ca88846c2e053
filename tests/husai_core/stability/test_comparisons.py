from __future__ import annotations

import pytest
from scipy import stats

from husai_core.stability.comparisons import holm, p_value
from husai_core.stability.intervals import seed_mean

A, B = [0.5, 0.7, 0.6, 0.9], [0.4, 0.5, 0.7, 0.6]


def test_the_p_value_of_a_mean_difference_is_that_of_the_paired_t_test() -> None:
    assert p_value(seed_mean(A) - seed_mean(B)) == pytest.approx(stats.ttest_rel(A, B).pvalue)


@pytest.mark.parametrize(("values", "expected"), [([0.1, 0.2], None), ([0.3] * 4, 0.0), ([0.0] * 4, 1.0)])
def test_p_values_at_the_edges(values: list[float], expected: float | None) -> None:
    assert p_value(seed_mean(values)) == expected


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_unknown_comparison_counts() -> None:
    assert holm([0.02, None]) == [0.04, None]
