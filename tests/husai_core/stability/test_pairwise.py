from __future__ import annotations

from math import inf

import pytest
import torch

from husai_core.estimate import Estimate
from husai_core.saes.recipe import SAERecipe
from husai_core.stability import nulls
from husai_core.stability.halves import Doubled
from husai_core.stability.intervals import Statistic, pair_mean
from husai_core.stability.overlap import pair_statistic
from husai_core.stability.pairwise import PairwiseOverlaps, against_nulls
from tests.seed_worlds import planted


def test_chance_over_alive_features_is_that_of_their_mean_number() -> None:
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    saes = nulls.random_saes(SAERecipe(architecture="relu", l1=1, d_sae=24), rows, [0, 1])
    for sae, alive in zip(saes, (3, 7), strict=True):
        sae.b_enc = torch.where(torch.arange(24) < alive, 0.0, -1e6)
    overlaps = PairwiseOverlaps(saes, rows)
    for metric in ("pwmcc", "mmcs_signed", "pw_mcc"):
        assert overlaps.gaussian(f"{metric}_alive") == nulls.gaussian(8, 5)[metric]
        assert overlaps.gaussian(metric) == nulls.gaussian(8, 24)[metric]


def test_shares_and_cosines_have_intervals_that_they_can_lie_in() -> None:
    """Two of three pairs share every feature and one none, so a symmetric interval reaches far beyond [0, 1]."""
    values = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    observed, control = pair_mean(values), pair_mean([[1.0, 0.0, 0.0]] * 3)
    assert (observed.estimate().high or 0) > 1
    chance = Doubled(nulls.Null(0.0, 0.1, 20))
    figures = against_nulls("shared_fraction_0_7", Doubled(observed), chance, {"shuffled": Doubled(control)})
    least = {"shared_fraction_0_7_excess": -1.0, "shared_fraction_0_7_excess_rescaled": -inf}
    for name, estimate in figures.statistics.items():
        assert estimate.low is not None, name
        assert estimate.high is not None, name
        assert least.get(name, 0.0) <= estimate.low <= estimate.high <= 1, name
    signed = against_nulls("mmcs_signed", Doubled(observed), chance, {})
    assert signed.statistics["mmcs_signed"].low == -1
    assert signed.changes == {}


def matrix(*pairs: float) -> list[list[float]]:
    """Three seeds with these values of the pairs 0-1, 0-2 and 1-2."""
    a, b, c = pairs
    return [[1.0, a, b], [a, 1.0, c], [b, c, 1.0]]


def rescaled(observed: Statistic, chance: nulls.Null, *controls: Statistic, paired: bool = True) -> Estimate:
    doubled = {str(place): Doubled(control) for place, control in enumerate(controls)}
    measured = against_nulls("pwmcc", Doubled(observed), Doubled(chance), doubled, paired)
    return measured.statistics["pwmcc_excess_rescaled"]


def test_a_rescaled_excess_is_the_share_of_what_the_largest_null_leaves() -> None:
    observed, control = pair_mean(matrix(0.80, 0.78, 0.82)), pair_mean(matrix(0.5, 0.5, 0.5))
    chance = nulls.Null(0.3, 0.0, 200)
    share = rescaled(observed, chance, control)
    measured = against_nulls("pwmcc", Doubled(observed), Doubled(chance), {"shuffled": Doubled(control)})
    excess = measured.statistics["pwmcc_excess"]
    assert share.value == pytest.approx(0.3 / 0.5)
    assert excess.low is not None
    assert share.low == pytest.approx(excess.low / 0.5)


@pytest.mark.parametrize("features", [16, 64, 256])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_rescaled_excess_is_the_share_of_common_features_at_any_width(features: int, share: float) -> None:
    observed = pair_statistic(planted(5, features, 16, share), lambda pairs: None)
    figure = rescaled(observed, nulls.gaussian(16, features)["pwmcc"])
    assert None not in (figure.low, figure.high)
    assert (figure.low or 0) <= share <= (figure.high or 0)
    assert figure.value == pytest.approx(share, abs=0.03)


def test_where_common_features_differ_by_noise_the_share_is_that_of_their_cosine() -> None:
    """They count with what is left of their cosine above chance, which is less in wide dictionaries."""
    chance = nulls.gaussian(16, 256)["pwmcc"]
    noisy = rescaled(pair_statistic(planted(5, 256, 16, 0.5, 0.95), lambda pairs: None), chance)
    assert noisy.value == pytest.approx(0.5 * (0.95 - chance.mean) / (1 - chance.mean), abs=0.03)


def test_a_rescaled_excess_keeps_what_seeds_and_controls_share() -> None:
    """A control that moves with its seed leaves a constant share, so the interval has no width; unpaired it has one."""
    control = matrix(0.4, 0.5, 0.6)
    observed = pair_mean([[1 - 0.5 * (1 - value) for value in row] for row in control])
    terms = observed, nulls.Null(0.0, 0.0, 200), pair_mean(control)
    paired, apart = (rescaled(*terms, paired=paired) for paired in (True, False))
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.5, 0.5, 0.5))
    assert apart.value == pytest.approx(0.5)
    assert apart.low is not None
    assert apart.low < 0.4


def test_the_spread_of_an_independent_null_widens_a_rescaled_excess() -> None:
    observed = pair_mean(matrix(0.80, 0.78, 0.82))
    sure, unsure = (rescaled(observed, nulls.Null(0.5, error, 200)) for error in (0.0, 0.2))
    assert sure.value == unsure.value == pytest.approx(0.6)
    assert None not in (sure.low, unsure.low)
    assert (unsure.low or 0) < (sure.low or 0)


def test_where_chance_is_complete_nothing_can_be_above_it() -> None:
    same = pair_mean(matrix(1.0, 1.0, 1.0))
    assert rescaled(same, nulls.Null(0.3, 0.0, 200), same).value is None
    assert rescaled(same, nulls.Null(1.0, 0.0, 200)).value is None
