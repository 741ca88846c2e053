from __future__ import annotations

import torch

from husai_core.saes.recipe import SAERecipe
from husai_core.stability import nulls
from husai_core.stability.intervals import pair_mean
from husai_core.stability.pairwise import PairwiseOverlaps, against_nulls


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
    figures = against_nulls("shared_fraction_0_7", observed, nulls.Null(0.0, 0.1, 20), {"shuffled": control})
    for name, estimate in figures.items():
        assert estimate.low is not None, name
        assert estimate.high is not None, name
        assert (-1 if name.endswith("excess") else 0) <= estimate.low <= estimate.high <= 1, name
    signed = against_nulls("mmcs_signed", observed, nulls.Null(0.0, 0.1, 20), {})
    assert signed["mmcs_signed"].low == -1
