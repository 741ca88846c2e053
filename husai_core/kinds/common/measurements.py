"""What is measured of SAEs before a policy judges them, and the jobs that measure it. Light: no torch.

Studies differ in where SAEs come from. From there on they ask for the same jobs, under the same names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from husai_core import kinds
from husai_core.kinds.common import check_rows
from husai_core.kinds.kind import Child, From

MEASURED = {
    "core": "benchmark.core",
    "features": "benchmark.features",
    "stability": "stress.trained_vs_random",
    "transcoder": "stress.transcoder",
    "ood": "stress.ood",
    "untrained": "stress.untrained_model",
}
"""The measurements, by the names of the jobs that make them."""
INTERVENTION = "intervention"
CHECKED = {**MEASURED, INTERVENTION: "stress.intervention"}
"""What a check measures: also what takes the pipeline too long and no shipped policy reads."""
BENCHMARKS = tuple(name for name, kind in MEASURED.items() if kind.startswith("benchmark."))
STRESSES = tuple(name for name, kind in MEASURED.items() if kind.startswith("stress."))
"""Those that read rows; an intervention reads the network alone, as a benchmark does."""
MORE_ROWS = {"transcoder": "mlp", "ood": "shifted", "untrained": "untrained"}
"""The rows that stresses of SAEs on a language model take besides the SAEs' own (see `check_rows.collect`)."""
INSIDE = ("ood",)
"""Stresses that run the language model as well as they read its rows."""
ADDITION_PORTS: Mapping[str, Sequence[str]] = {
    "stress.trained_vs_random": ("saes", "activations"),
    "stress.transcoder": ("saes", "transformer"),
    "stress.ood": ("saes", "transformer"),
    "stress.untrained_model": ("saes", "activations", "transformer"),
}
"""The ports that a stress takes on a network for addition; its other ports are for language models."""
CLAIM_PORTS = ("activations", "retrained")
"""The ports that every stress takes where SAEs were trained by the claimed recipe of imported ones."""
OWN_ROWS_APART = ("transcoder",)
"""Stresses of SAEs on a language model that take the SAEs' own rows for that alone."""
Sources = Sequence[str | From]


@dataclass(frozen=True)
class Subject:
    """The SAEs that are measured, and what with.

    Args:
        network: what they read: a language model, or a network for addition (`model`).
        sources: by port, digests or what other jobs make: `saes`, their `activations`, the `transformer`, texts, rows
            that need not be collected any more, and of imported SAEs those `retrained` here by their recipe.
        held_out: fields of what is measured inside the network.
        intervention: further fields of stress.intervention.
        recipe: how imported SAEs were trained, if they do not say it.
        read: language only: fields of train.activations that are the same for all rows.
        hook_name: language only: where the SAEs read.
    """

    network: Literal["language", "model"]
    sources: Mapping[str, Sources]
    held_out: Mapping[str, Any] = field(default_factory=dict)
    intervention: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    read: Mapping[str, Any] = field(default_factory=dict)
    hook_name: str = ""


def jobs(name: str, subject: Subject) -> list[Child]:
    """A measurement, behind the jobs that collect more rows for it.

    Raises:
        UserError: the SAEs' hook lies in no layer, so that they cannot be compared with its MLP.
    """
    kind, sources, children = CHECKED[name], dict(subject.sources), list[Child]()
    if name not in STRESSES:
        further = subject.intervention if name == INTERVENTION else {}
        return [Child(name, kind, {**subject.held_out, **further}, _bound(sources, list(kinds.get(kind).inputs)))]
    fields: dict[str, Any] = {"recipe": subject.recipe} if subject.recipe else {}
    of_claim = CLAIM_PORTS if "retrained" in sources else ()
    if subject.network == "model":
        return [Child(name, kind, fields, _bound(sources, [*ADDITION_PORTS[kind], *of_claim]))]
    if name in MORE_ROWS and not sources.keys() & check_rows.PORTS[MORE_ROWS[name]]:
        collected = check_rows.collect(MORE_ROWS[name], subject.read, subject.hook_name, sources)
        children, sources = collected.children, {**sources, **collected.sources}
    if name in INSIDE and "model" in subject.held_out:
        fields["model"] = subject.held_out["model"]
    ports = [port for port in kinds.get(kind).inputs if port != "transformer" or name in INSIDE]
    ports = [port for port in ports if port in of_claim or port != "activations" or name not in OWN_ROWS_APART]
    return [*children, Child(name, kind, fields, _bound(sources, ports))]


def _bound(sources: Mapping[str, Sources], ports: Sequence[str]) -> dict[str, Sources]:
    return {port: sources[port] for port in ports if port in sources}
