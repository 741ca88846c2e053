from __future__ import annotations

import torch

from husai_core.saes.recipe import SAERecipe
from husai_core.stability import nulls
from husai_core.stability.pairwise import PairwiseOverlaps


def test_chance_over_alive_features_is_that_of_their_mean_number() -> None:
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    saes = nulls.random_saes(SAERecipe(architecture="relu", l1=1, d_sae=24), rows, [0, 1])
    for sae, alive in zip(saes, (3, 7), strict=True):
        sae.b_enc = torch.where(torch.arange(24) < alive, 0.0, -1e6)
    overlaps = PairwiseOverlaps(saes, rows)
    for metric in ("pwmcc", "mmcs_signed", "pw_mcc"):
        assert overlaps.gaussian(f"{metric}_alive") == nulls.gaussian(8, 5)[metric]
        assert overlaps.gaussian(metric) == nulls.gaussian(8, 24)[metric]
