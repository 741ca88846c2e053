"""Whether a claimed recipe makes such SAEs as it is claimed of: imported SAEs beside SAEs trained here by it.

They agree where the whole interval of a difference lies inside a margin, of the explained variance, of L0, and of the
overlap of seeds. The two groups share no seed, so their variances are added, with degrees of freedom after Welch and
Satterthwaite. One or two imported SAEs have no spread of their own. Their overlap is that with the retrained ones, and
they are held against what a retrained SAE shows that stands in their place, each in turn beside the others: if the
recipe is true, all are draws of one training. As only one SAE of such a pair is imported, half the margin is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from husai_core.estimate import Estimate
from husai_core.evidence import RecipeCheck, RecipeFigure
from husai_core.saes.bank import Rows
from husai_core.saes.evaluate import Figures, evaluate_all
from husai_core.saes.sae import SAE
from husai_core.stability.intervals import CONFIDENCE, Array, Statistic, pair_mean, seed_mean
from husai_core.stability.overlap import pwmcc
from husai_core.stability.seed_group import LEAST_SEEDS
from husai_core.stability.settled import all_settled, settled

EXPLAINED_VARIANCE, L0, PWMCC = 0.02, 0.05, 0.1
"""Margins; that of L0 is a share of the retrained SAEs'."""


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
    l0_margin = L0 * float(np.mean([figure.l0 for figure in groups[1]]))
    compared = {
        "explained_variance": _means("lower_explained_variance", *groups, EXPLAINED_VARIANCE),
        "l0": _means("l0", *groups, l0_margin),
        "pwmcc": _overlap(imported, retrained, device),
    }
    agrees = all_settled(figure.agrees for figure in compared.values())
    return RecipeCheck(agrees=agrees, figures=compared, retrained=list(digests), rows=rows.shape[0])


def _means(name: str, imported: Sequence[Figures], retrained: Sequence[Figures], margin: float) -> RecipeFigure:
    """The mean of a figure over each group."""
    here, there = (seed_mean([getattr(figures, name) for figures in group]) for group in (retrained, imported))
    if there.n >= LEAST_SEEDS:
        return _compared(there.estimate(), here, there.minus(here.independent).estimate(), margin)
    values = np.array([getattr(figures, name) for figures in retrained])
    difference = in_their_place(there.value - here.value, beside_others(values), there.n)
    return _compared(Estimate(value=there.value, n=there.n), here, difference, margin)


def _overlap(imported: Sequence[SAE], retrained: Sequence[SAE], device: str) -> RecipeFigure:
    """PWMCC inside each group; of few imported SAEs that between the groups."""
    count, overlaps = len(imported), _matrix([*imported, *retrained], device)
    among, between = overlaps[count:, count:], overlaps[:count, count:]
    here = pair_mean(among)
    if count >= LEAST_SEEDS:
        there = pair_mean(overlaps[:count, :count])
        return _compared(there.estimate(), here, there.minus(here.independent).estimate(), PWMCC)
    value = float(between.mean())
    difference = in_their_place(value - here.value, overlap_beside_others(among), count)
    return _compared(Estimate(value=value, n=count), here, difference, PWMCC / 2)


def _matrix(saes: Sequence[SAE], device: str) -> Array:
    """PWMCC of all pairs [n, n]; 1 on the diagonal."""
    decoders = [sae.decoder.to(device) for sae in saes]
    overlaps = np.eye(len(decoders))
    for i, j in combinations(range(len(decoders)), 2):
        overlaps[i, j] = overlaps[j, i] = pwmcc(decoders[i], decoders[j])
    return overlaps


def beside_others(values: Array) -> Array:
    """Each of n values [n] less the mean of the others."""
    others: Array = (values.sum() - values) / max(1, len(values) - 1)
    return values - others


def overlap_beside_others(pairs: Array) -> Array:
    """For each of n SAEs, its mean overlap with the others less that among the others [n], from all pairs [n, n]."""
    n = len(pairs)
    sums: Array = pairs.sum(1) - pairs.diagonal()
    total = sums.sum() / 2
    among: Array = (total - sums) / max(1, (n - 1) * (n - 2) / 2)
    return sums / max(1, n - 1) - among


def in_their_place(difference: float, placebos: Array, count: int) -> Estimate:
    """The difference of `count` further draws from n that are alike, with a 95 % interval.

    Args:
        difference: of the mean of these draws from the n.
        placebos: the same difference of each of the n in turn from the others [n], which vary about 0 by n / (n - 1)
            times as much as one draw does about the mean of all.
        count: how many further draws there are.
    """
    n, unit = len(placebos), "seed"
    if not np.isfinite(difference):
        return Estimate(value=None, n=n, unit=unit, method="cannot be computed")
    if n < LEAST_SEEDS:
        return Estimate(value=difference, n=n, unit=unit, method=f"unknown below {LEAST_SEEDS} {unit}s")
    spread = float(np.square(placebos).sum() / (n - 1)) ** 0.5 * (n - 1) / n
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * spread * (1 / count + 1 / n) ** 0.5
    method = f"each of {n} seeds in turn in place of the others, t quantile, {n - 1} degrees of freedom"
    return Estimate(value=difference, low=difference - half, high=difference + half, n=n, unit=unit, method=method)


def _compared(imported: Estimate, retrained: Statistic, difference: Estimate, margin: float) -> RecipeFigure:
    return RecipeFigure(
        imported=imported,
        retrained=retrained.estimate(),
        difference=difference,
        margin=margin,
        agrees=settled(difference, margin),
    )
