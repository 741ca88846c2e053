"""The rows that stresses of SAEs on a language model read besides the SAEs' own, and the jobs that collect them.

All are of the same tokens in the same split as the SAEs' own, since they are read with the same settings. Light: no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from husai_core.kinds.common import mlp_rows, same_rows
from husai_core.kinds.kind import Child, From

SEED = 1000
"""Of the weights of an untrained network."""


@dataclass(frozen=True)
class Collected:
    """Jobs that collect rows, and what a stress binds of what they make, by port."""

    children: list[Child]
    sources: dict[str, list[str | From]]


def collect(port: str, read: Mapping[str, Any], hook_name: str, inputs: Mapping[str, Sequence[str]]) -> Collected:
    """The rows for a stress.

    Args:
        port: `activations`, the SAEs' own rows; `untrained`, those of an untrained network of each mode; `mlp`, those
            at input and output of the MLP of their layer; `shifted`, those on the texts of every other domain.
        read: fields of train.activations that are the same for all rows.
        hook_name: where the SAEs read.
        inputs: what is bound to the study: `transformer`, `text`, and `shifted_text`, an upload for each domain.

    Raises:
        UserError: the hook lies in no layer, so that there is no MLP.
    """
    network = {name: digests for name, digests in inputs.items() if digests and name in ("transformer", "text")}
    if port == "shifted":
        domains = enumerate(inputs["shifted_text"])
        children = [
            _child(f"rows-ood-{i}", read, network | {"text": [text]}, hook_name=hook_name) for i, text in domains
        ]
        return Collected(children, {port: [From(child.name, "activations") for child in children]})
    if port == "mlp":
        layer = mlp_rows.layer_of(hook_name)
        hooks = [f"blocks.{layer}.{mlp_rows.HOOKS[end][0]}" for end in mlp_rows.PORTS]
        child = _child("rows-transcoder", read, network, hook_names=hooks)
        return Collected([child], {end: [From(child.name, "activations", i)] for i, end in enumerate(mlp_rows.PORTS)})
    if port == "untrained":
        children = [
            _child(f"rows-untrained-{mode}", read, network, hook_name=hook_name, untrained=mode, untrained_seed=SEED)
            for mode in same_rows.MODES
        ]
        return Collected(children, {port: [From(child.name, "activations") for child in children]})
    child = _child("rows", read, network, hook_name=hook_name)
    return Collected([child], {port: [From(child.name, "activations")]})


def _child(name: str, read: Mapping[str, Any], inputs: Mapping[str, Sequence[str]], **fields: Any) -> Child:
    return Child(name, "train.activations", {**read, **fields}, inputs)
