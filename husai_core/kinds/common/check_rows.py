"""The rows that stresses of SAEs on a language model read besides the SAEs' own, and the jobs that collect them.

All are of the same tokens in the same split as the SAEs' own, since they are read with the same settings. Light: no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from husai_core.kinds.common import same_rows
from husai_core.kinds.kind import Child, From

FIRST_NETWORK_SEED = 1000
"""Seed of the first untrained network."""


@dataclass(frozen=True)
class Collected:
    """Jobs that collect rows, and what a stress binds of what they make, by port."""

    children: list[Child]
    sources: dict[str, list[str | From]]


def collect(port: str, read: Mapping[str, Any], hook_name: str, inputs: Mapping[str, Sequence[str]]) -> Collected:
    """The rows for one port of a stress.

    Args:
        port: `activations`, the SAEs' own rows, or `untrained`, those of an untrained network of each mode.
        read: fields of train.activations that are the same for all rows.
        hook_name: where the SAEs read.
        inputs: the network and the texts, as train.activations takes them.
    """
    if port == "activations":
        children = [Child("rows", "train.activations", {**read, "hook_name": hook_name}, inputs)]
        return Collected(children, {port: [From("rows", "activations")]})
    children = []
    for mode in same_rows.MODES:
        spec = {**read, "hook_name": hook_name, "untrained": mode, "untrained_seed": FIRST_NETWORK_SEED}
        children.append(Child(f"rows-untrained-{mode}", "train.activations", spec, inputs))
    return Collected(children, {port: [From(child.name, "activations") for child in children]})
