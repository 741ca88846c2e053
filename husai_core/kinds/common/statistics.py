"""The statistics that the stresses declare for release policies, with the values that each can take.

Light: no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

Range = tuple[float, float]
SHARE: Range = (0.0, 1.0)
COSINE: Range = (-1.0, 1.0)
EXPLAINED_VARIANCE: Range = (-inf, 1.0)
RESCALED: Range = (-inf, 1.0)
"""An excess as a share of what its null leaves: 1 where seeds agree in everything."""
UNBOUNDED: Range = (-inf, inf)
OVERLAPS: dict[str, Range] = {
    "pwmcc": SHARE,
    "mmcs_signed": COSINE,
    "shared_fraction_0_7": SHARE,
    "pw_mcc": SHARE,
    "activation_mcc": COSINE,
    "activation_pw_mcc": COSINE,
}
"""What each overlap of two dictionaries can be, over all and over alive features."""
SUFFIXES = ("", "_alive")


def difference(values: Range) -> Range:
    """What the difference of two figures can be that both lie in a range."""
    low, high = values
    return low - high, high - low


def with_nulls(metric: str, values: Range, nulls: Iterable[str]) -> dict[str, Range]:
    """A metric beside its chance levels, by their names."""
    return {metric: values, **{f"{metric}_{null}_null": values for null in nulls}}


def above_nulls(nulls: Iterable[str]) -> dict[str, Range]:
    """Every overlap, its chance levels, and its excess over the largest of them, plain and rescaled."""
    names, statistics = list(nulls), dict[str, Range]()
    for metric, values in ((name + suffix, values) for name, values in OVERLAPS.items() for suffix in SUFFIXES):
        above = {f"{metric}_excess": difference(values), f"{metric}_excess_rescaled": RESCALED}
        statistics |= with_nulls(metric, values, names) | above
    return statistics


def of_two_groups(groups: Sequence[str], nulls: Sequence[str]) -> dict[str, Range]:
    """PWMCC of two groups, each above its own chance levels, and the difference of what is left."""
    statistics: dict[str, Range] = {}
    above = {"": difference(SHARE), "_rescaled": RESCALED}
    between = {"": difference(difference(SHARE)), "_rescaled": UNBOUNDED}
    for suffix in SUFFIXES:
        for group in groups:
            named = with_nulls(f"pwmcc{suffix}", SHARE, nulls)
            statistics |= {f"{group}_{name}": values for name, values in named.items()}
            statistics |= {f"{group}_excess{ending}{suffix}": values for ending, values in above.items()}
        statistics |= {"_minus_".join(groups) + ending + suffix: values for ending, values in between.items()}
    for null in nulls:
        statistics |= {f"{group}_{null}_excess{e}": values for group in groups for e, values in above.items()}
        statistics |= {f"{'_minus_'.join(groups)}{ending}_{null}": values for ending, values in between.items()}
    return statistics


def on_two_networks(metric: str, modes: Iterable[str]) -> dict[str, Range]:
    """An overlap on a trained and on untrained networks, and their difference, also by what is untrained of them."""
    values = OVERLAPS[metric.removesuffix("_alive")]
    name = "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained"
    statistics = {f"{metric}_trained": values}
    for ending in ("", *(f"_{mode}" for mode in modes)):
        statistics |= {f"{metric}_untrained{ending}": values, f"{name}{ending}": difference(values)}
    return statistics
