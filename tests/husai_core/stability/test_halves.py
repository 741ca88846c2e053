"""What the last doubling changed, against simulated seeds and figures worked out by hand."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from husai_core.stability.halves import Doubled, Draws, Measured, change_of_smallest, excess, plain, rescaled_excess
from husai_core.stability.intervals import Statistic, pair_mean, seed_mean
from husai_core.stability.nulls import Null


def pairs(values: list[float]) -> Statistic:
    """Three seeds with these values of the pairs 01, 02 and 12."""
    a, b, c = values
    return pair_mean([[1, a, b], [a, 1, c], [b, c, 1]])


def test_a_change_is_paired_by_seed() -> None:
    """Seeds differ much, but every seed gains the same: the change is known exactly, and the figure is not."""
    observed = Doubled(seed_mean([0.3, 0.6, 0.9]), seed_mean([0.2, 0.5, 0.8]))
    change = plain(observed).change
    assert change is not None
    estimate = change.estimate()
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.1, 0.1, 0.1))
    whole = observed.whole.estimate()
    assert (whole.high or 0) - (whole.low or 0) > 0.5


def test_what_a_control_gains_as_well_is_no_change_of_the_excess() -> None:
    observed = Doubled(pairs([0.5, 0.6, 0.7]), pairs([0.4, 0.5, 0.6]))
    control = Doubled(pairs([0.3, 0.4, 0.5]), pairs([0.2, 0.3, 0.4]))
    for paired in (True, False):
        change = excess(observed, control, paired).change
        assert change is not None
        assert change.value == pytest.approx(0)
    apart, together = (excess(observed, control, paired).whole.estimate() for paired in (False, True))
    assert apart.value == pytest.approx(together.value)
    assert (apart.high or 0) > (together.high or 0)


def test_a_simulated_null_of_one_shape_drops_out_of_the_change() -> None:
    observed = Doubled(pairs([0.5, 0.6, 0.7]), pairs([0.4, 0.6, 0.5]))
    above = excess(observed, Doubled(Null(0.3, 0.2, 20), Null(0.3, 0.2, 20)), paired=False)
    assert above.change is not None
    alone = plain(observed).change
    assert alone is not None
    assert above.change.estimate() == alone.estimate()
    other = excess(observed, Doubled(Null(0.3, 0.0, 20), Null(0.2, 0.0, 20)), paired=False).change
    assert other is not None
    assert other.value == pytest.approx(alone.value - 0.1)


def test_without_a_half_of_both_there_is_no_change() -> None:
    whole, doubled = Doubled(pairs([0.5, 0.6, 0.7])), Doubled(pairs([0.3, 0.4, 0.5]), pairs([0.2, 0.3, 0.4]))
    for observed, null in ((whole, doubled), (doubled, whole)):
        for paired in (True, False):
            assert excess(observed, null, paired).change is None
            assert rescaled_excess(observed, null, paired).change is None


@pytest.mark.parametrize("paired", [True, False])
def test_a_rescaled_excess_is_a_share_of_what_the_null_leaves(paired: bool) -> None:
    observed = Doubled(pairs([0.8, 0.8, 0.8]), pairs([0.7, 0.7, 0.7]))
    null = Doubled(pairs([0.5, 0.5, 0.5]), pairs([0.4, 0.4, 0.4]))
    figure = rescaled_excess(observed, null, paired)
    assert figure.whole.estimate().value == pytest.approx(0.6)
    assert figure.change is not None
    assert figure.change.estimate().value == pytest.approx(0.1)


def test_the_rescaled_interval_carries_the_uncertainty_of_a_null_about_other_seeds() -> None:
    """Of independent normal seeds: the standard error is that of many simulated ratios."""
    rng, n = np.random.default_rng(0), 6
    ratios, errors = [], []
    for _ in range(400):
        x, c = seed_mean(list(rng.normal(0.7, 0.02, n))), seed_mean(list(rng.normal(0.4, 0.05, n)))
        figure = rescaled_excess(Doubled(x), Doubled(c), paired=False).whole
        ratios.append(figure.value)
        errors.append(figure.total_variance[0] ** 0.5)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)
    fixed = rescaled_excess(Doubled(x), Doubled(Null(c.value, 0.0, 20)), paired=False).whole
    assert fixed.total_variance[0] ** 0.5 < 0.6 * np.mean(errors)


def test_a_rescaled_change_of_nulls_about_other_seeds_pairs_them_with_themselves() -> None:
    x = Doubled(seed_mean([0.7, 0.7, 0.7]), seed_mean([0.6, 0.6, 0.6]))
    noisy = Doubled(seed_mean([0.3, 0.4, 0.5]), seed_mean([0.2, 0.3, 0.4]))
    change = rescaled_excess(x, noisy, paired=False).change
    assert change is not None
    slopes = 0.3 / 0.6**2, 0.4 / 0.7**2
    expected = Statistic(3, lambda w: slopes[0] * noisy.whole.at(w) - slopes[1] * (noisy.half or x.whole).at(w))
    assert change.total_variance[0] == pytest.approx(expected.variance)


def test_a_null_that_leaves_nothing_gives_no_rescaled_excess() -> None:
    full, some = pairs([1.0, 1.0, 1.0]), pairs([0.5, 0.6, 0.7])
    for null in (Doubled(full), Doubled(Null(1.0, 0.0, 20))):
        for paired in (True, False):
            assert rescaled_excess(Doubled(some), null, paired).whole.estimate().value is None


def test_the_change_of_the_smallest_covers_both_figures_where_another_is_the_smallest_by_then() -> None:
    a = Doubled(seed_mean([0.10, 0.11, 0.12]), seed_mean([0.30, 0.31, 0.33]))
    b = Doubled(seed_mean([0.20, 0.22, 0.21]), seed_mean([0.25, 0.25, 0.25]))
    figures = [plain(a), plain(b)]
    changes = [figure.change for figure in figures if figure.change is not None]
    smallest = change_of_smallest([figure.whole.value for figure in figures], changes)
    of_a, of_b = (change.estimate() for change in changes)
    assert smallest.value == pytest.approx(0.11 - 0.25)
    assert (smallest.low, smallest.high) == (of_a.low, of_b.high)


def test_the_change_of_the_smallest_does_not_look_at_nulls_far_below() -> None:
    near = Doubled(seed_mean([0.10, 0.11, 0.12]), seed_mean([0.09, 0.10, 0.11]))
    far = Doubled(seed_mean([0.4, 0.5, 0.6]), seed_mean([0.2, 0.3, 0.4]))
    measured = Measured()
    measured.add_smallest("excess", [plain(far), plain(near)])
    alone = plain(near).change
    assert alone is not None
    assert measured.changes["excess"] == alone.estimate()


def test_a_change_lies_in_what_the_figure_can_change_by() -> None:
    measured = Measured()
    measured.add("share", plain(Doubled(seed_mean([0.0, 1.0, 1.0]), seed_mean([1.0, 0.0, 0.0]))), (0.0, 1.0))
    change = measured.changes["share"]
    assert (change.low, change.high) == (-1, 1)
    measured.add("any", plain(Doubled(seed_mean([0.0, 1.0, 1.0]), seed_mean([1.0, 0.0, 0.0]))), (-inf, inf))
    assert (measured.changes["any"].low or 0) < -1


def test_the_spread_of_two_draws_is_in_the_interval_and_one_draw_says_nothing() -> None:
    draws = [Doubled(pairs([value] * 3), pairs([half] * 3)) for value, half in ((0.4, 0.3), (0.6, 0.4))]
    both, alone = Draws(draws), Draws(draws[:1])
    figure = both.spread(plain(both.mean))
    assert figure.whole.value == pytest.approx(0.5)
    assert figure.whole.total_variance == pytest.approx((0.02 / 2, 1))
    assert figure.change is not None
    assert figure.change.value == pytest.approx(0.15)
    assert figure.change.total_variance == pytest.approx((0.005 / 2, 1))
    assert alone.spread(plain(alone.mean)).whole.total_variance[0] == pytest.approx(0)
    observed = Doubled(pairs([0.7, 0.8, 0.9]), pairs([0.7, 0.8, 0.9]))
    difference = both.spread(excess(observed, both.mean, paired=True)).whole
    assert difference.total_variance[0] == pytest.approx(observed.whole.variance + 0.01)


def test_the_largest_is_the_smallest_with_the_other_sign() -> None:
    measured = Measured()
    a, b = Doubled(seed_mean([0.1, 0.2, 0.3]), seed_mean([0.1, 0.1, 0.1])), Doubled(seed_mean([0.4, 0.5, 0.6]))
    measured.add_largest("both", [plain(a), plain(b)])
    measured.add_largest("first", [plain(a)])
    assert measured.statistics["both"].value == pytest.approx(0.5)
    assert measured.statistics["first"] == plain(a).whole.estimate()
    assert measured.changes.keys() == {"first"}
    assert measured.changes["first"].value == pytest.approx(0.1)
