"""Whether a claimed recipe makes such SAEs as it is claimed of: imported SAEs beside SAEs trained here by it.

They agree where the whole interval of a difference lies inside a margin, of the explained variance, of L0, and of the
overlap of seeds. The two groups share no seed, so their variances are added, with degrees of freedom after Welch and
Satterthwaite. One or two imported SAEs have no spread of their own. They count as draws of the retrained ones, whose
spread is taken, and their overlap is that with the retrained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from husai_core.estimate import Estimate
from husai_core.evidence import RecipeCheck, RecipeFigure
from husai_core.saes.bank import Rows
from husai_core.saes.evaluate import Figures, evaluate_all
from husai_core.saes.sae import SAE
from husai_core.stability.intervals import Array, Statistic, pair_mean, seed_mean
from husai_core.stability.overlap import pwmcc
from husai_core.stability.seed_group import LEAST_SEEDS
from husai_core.stability.settled import all_settled, settled

MARGINS = {"explained_variance": 0.02, "pwmcc": 0.05}
L0_MARGIN = 0.05
"""As a share of the L0 of the retrained SAEs."""


def check(
    imported: Sequence[SAE], retrained: Sequence[SAE], digests: Sequence[str], rows: Rows, device: str = "cpu"
) -> RecipeCheck:
    """Compare imported SAEs with SAEs that were trained here by their claimed recipe.

    Args:
        imported: one or more SAEs.
        retrained: two or more SAEs of other seeds.
        digests: those of the retrained SAEs.
        rows: held-out rows [n, d_in].
        device: what computes.
    """
    figures = evaluate_all([*imported, *retrained], rows, device=device)
    groups = figures[: len(imported)], figures[len(imported) :]
    l0_margin = L0_MARGIN * float(np.mean([figure.l0 for figure in groups[1]]))
    compared = {
        "explained_variance": _means("lower_explained_variance", *groups, MARGINS["explained_variance"]),
        "l0": _means("l0", *groups, l0_margin),
        "pwmcc": _overlap(imported, retrained, device),
    }
    agrees = all_settled(figure.agrees for figure in compared.values())
    return RecipeCheck(agrees=agrees, figures=compared, retrained=list(digests), rows=rows.shape[0])


def _means(name: str, imported: Sequence[Figures], retrained: Sequence[Figures], margin: float) -> RecipeFigure:
    """The mean of a figure over each group."""
    here, there = (seed_mean([getattr(figures, name) for figures in group]) for group in (retrained, imported))
    if there.n >= LEAST_SEEDS:
        return _compared(there.estimate(), here, there.minus(here.independent), margin)
    drawn = Statistic(here.n, lambda w: there.value - here.at(w))
    return _compared(Estimate(value=there.value, n=there.n), here, as_draws(drawn, there.n), margin)


def _overlap(imported: Sequence[SAE], retrained: Sequence[SAE], device: str) -> RecipeFigure:
    """PWMCC inside each group; of few imported SAEs that between the groups."""
    count, overlaps = len(imported), _matrix([*imported, *retrained], device)
    margin, here = MARGINS["pwmcc"], pair_mean(overlaps[count:, count:])
    if count >= LEAST_SEEDS:
        there = pair_mean(overlaps[:count, :count])
        return _compared(there.estimate(), here, there.minus(here.independent), margin)
    between = seed_mean(overlaps[:count, count:].mean(0).tolist())
    return _compared(Estimate(value=between.value, n=count), here, as_draws(between - here, count), margin)


def _matrix(saes: Sequence[SAE], device: str) -> Array:
    """PWMCC of all pairs [n, n]; 1 on the diagonal."""
    decoders = [sae.decoder.to(device) for sae in saes]
    overlaps = np.eye(len(decoders))
    for i, j in combinations(range(len(decoders)), 2):
        overlaps[i, j] = overlaps[j, i] = pwmcc(decoders[i], decoders[j])
    return overlaps


def as_draws(difference: Statistic, count: int) -> Statistic:
    """A difference of `count` further draws from a mean over n seeds, which varies by 1 + n / count as much as that."""
    value, stretch = difference.value, (1 + difference.n / count) ** 0.5
    return Statistic(difference.n, lambda w: value + stretch * (difference.at(w) - value))


def _compared(imported: Estimate, retrained: Statistic, difference: Statistic, margin: float) -> RecipeFigure:
    apart = difference.estimate()
    return RecipeFigure(
        imported=imported,
        retrained=retrained.estimate(),
        difference=apart,
        margin=margin,
        agrees=settled(apart, margin),
    )
