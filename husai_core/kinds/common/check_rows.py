"""The rows that stresses of SAEs on a language model read besides the SAEs' own, and the jobs that collect them.

All but those of other texts are of the same tokens in the same split as the SAEs' own, since they are read with the
same settings. Light: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from husai_core import assets
from husai_core.kinds.common import mlp_rows, same_rows
from husai_core.kinds.kind import Child, From

PORTS = {"mlp": mlp_rows.PORTS, "shifted": ("shifted",), "untrained": ("untrained",)}
"""The ports of a stress that take the rows of each sort."""
SEED = 1000
"""Of the weights of an untrained network."""


@dataclass(frozen=True)
class Collected:
    """Jobs that collect rows, and what a stress binds of what they make, by port."""

    children: list[Child]
    sources: dict[str, Sequence[str | From]]


def mlp_hooks(hook_name: str) -> list[str]:
    """The hooks at input and output of the MLP of the layer in which SAEs read.

    Raises:
        UserError: their hook lies in no layer, so that there is no MLP.
    """
    return [f"blocks.{mlp_rows.layer_of(hook_name)}.{mlp_rows.HOOKS[end][0]}" for end in mlp_rows.PORTS]


def collect(
    port: str, read: Mapping[str, Any], hook_name: str, inputs: Mapping[str, Sequence[str | From]]
) -> Collected:
    """The rows for a stress.

    Args:
        port: `activations`, the SAEs' own rows; `untrained`, those of an untrained network of each mode; `mlp`, those
            at input and output of the MLP of their layer; `shifted`, those on the texts of every other domain.
        read: fields of train.activations that are the same for all rows.
        hook_name: where the SAEs read.
        inputs: what is bound to the study: `transformer`, `text`, and `shifted_text`, an upload for each domain. Where
            there are no such uploads, the built-in texts of other domains are read.

    Raises:
        UserError: the hook lies in no layer, so that there is no MLP.
    """
    network = {name: sources for name in ("transformer", "text") if (sources := inputs.get(name))}
    if port == "shifted":
        return _shifted(read, network, hook_name, inputs.get("shifted_text", ()))
    if port == "mlp":
        child = _child("rows-transcoder", read, network, hook_names=mlp_hooks(hook_name))
        return Collected([child], {end: [From(child.name, "activations", i)] for i, end in enumerate(mlp_rows.PORTS)})
    if port == "untrained":
        children = [
            _child(f"rows-untrained-{mode}", read, network, hook_name=hook_name, untrained=mode, untrained_seed=SEED)
            for mode in same_rows.MODES
        ]
        return Collected(children, {port: [From(child.name, "activations") for child in children]})
    child = _child("rows", read, network, hook_name=hook_name)
    return Collected([child], {port: [From(child.name, "activations")]})


def _shifted(
    read: Mapping[str, Any],
    network: Mapping[str, Sequence[str | From]],
    hook_name: str,
    texts: Sequence[str | From],
) -> Collected:
    """The rows on every other text."""
    children = [
        _child(f"rows-ood-{place}", read, {**network, "text": [text]}, hook_name=hook_name, domain=None)
        for place, text in enumerate(texts)
    ]
    if not texts:
        model = {name: sources for name, sources in network.items() if name != "text"}
        children = [
            _child(f"rows-ood-{domain}", read, model, hook_name=hook_name, domain=domain) for domain in assets.DOMAINS
        ]
    return Collected(children, {"shifted": [From(child.name, "activations") for child in children]})


def _child(name: str, read: Mapping[str, Any], inputs: Mapping[str, Sequence[str | From]], **fields: Any) -> Child:
    return Child(name, "train.activations", {**read, **fields}, inputs)
