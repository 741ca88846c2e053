"""What may be wrong with an SAE, in words: what the figures of benchmark.core look like. Light: no torch.

A rule says that a figure misses its bar; this says which of the usual faults would make it so. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.kinds.common.panels import number, percent

DEAD, COPYING = 0.5, 0.5
"""Share of latents that never fire, and active latents per dimension of a row, from which these are named."""
GAP = 0.1
"""Difference of explained variance from which it is named."""
ENOUGH = 0.7
"""Explained variance from which nothing is said of a random SAE or of other layers."""


def diagnoses(statistics: Mapping[str, Estimate], hook_name: str, by_layer: Mapping[str, float]) -> list[str]:
    """Faults that some figures look like, as sentences.

    Args:
        statistics: of benchmark.core.
        hook_name: where the SAE is said to read.
        by_layer: its explained variance at the same hook of every layer.
    """
    values = {name: estimate.value for name, estimate in statistics.items() if estimate.value is not None}
    outliers = list(_outliers(values))
    weak = [] if outliers else _weak(values, hook_name, by_layer)
    return [*_latents(values), *outliers, *weak, *_network(values)]


def of_core(result: Mapping[str, Any] | None) -> list[str]:
    """The same of a result of benchmark.core as JSON; nothing without one."""
    if result is None:
        return []
    statistics = {name: Estimate.model_validate(estimate) for name, estimate in result["statistics"].items()}
    return diagnoses(statistics, result["hook_name"], result["explained_by_layer"])


def panel(texts: Sequence[str]) -> list[panels.AnyPanel]:
    """The sentences as they are shown; nothing where there are none."""
    return [panels.Text(title="What may be wrong", paragraphs=list(texts))] if texts else []


def _latents(values: Mapping[str, float]) -> Iterator[str]:
    dead, per_dimension = values.get("dead_fraction", 0.0), values.get("l0_per_dimension", 0.0)
    if dead >= DEAD:
        yield f"Dead latents: {percent(dead)} of the latents never fire on the held-out rows."
    if per_dimension > COPYING:
        yield (
            f"It may copy its input: a row has {number(values['l0'])} active latents, {number(per_dimension)} for each "
            "of its dimensions, so that its code is no sparser than the row."
        )


def _outliers(values: Mapping[str, float]) -> Iterator[str]:
    names = [f"explained_variance{end}" for end in ("_all_rows", "_without_outliers")]
    if not all(name in values for name in names):
        return
    everywhere, usual = (values[name] for name in names)
    if abs(everywhere - usual) > GAP:
        holds = "has little but these" if everywhere > usual else "misses these"
        yield (
            f"Attention sinks, or other rows of outlying norm ({percent(values.get('outlier_fraction', 0.0))} of the "
            f"rows): the SAE {holds}. It explains {number(everywhere)} of the variance with them and {number(usual)} "
            "without."
        )


def _weak(values: Mapping[str, float], hook_name: str, by_layer: Mapping[str, float]) -> Iterator[str]:
    explained, random = values.get("explained_variance"), values.get("explained_variance_random")
    if explained is None or random is None or explained >= ENOUGH or values.get("dead_fraction", 0.0) >= DEAD:
        return
    here, elsewhere = by_layer.get(hook_name), {name: ev for name, ev in by_layer.items() if name != hook_name}
    best = max(elsewhere, key=elsewhere.__getitem__, default=None)
    if best is not None and here is not None and elsewhere[best] > max(here, random, 0.0) + GAP:
        yield (
            f"It may be of another layer: it explains {number(elsewhere[best])} of the variance at {best}, and "
            f"{number(here)} at {hook_name}, where it is said to read."
        )
    elif explained < 0:
        yield (
            "It reconstructs the rows worse than their mean does: it may be random, or of another layer, another model "
            "or activations of another scale."
        )
    elif explained <= random + GAP / 2:
        yield (
            f"It may be random, or hardly trained: it explains {number(explained)} of the variance, a random SAE of "
            f"its shape and L0 {number(random)}."
        )


def _network(values: Mapping[str, float]) -> Iterator[str]:
    if values and "loss_recovered" not in values:
        yield (
            "The network may be untrained, or may not use this hook: zeros in place of the rows hardly raise its "
            "cross-entropy."
        )
