"""Rows at the input and the output of an MLP, and the controls of a transcoder between them. Light: no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from husai_core.errors import UserError
from husai_core.job import Inputs
from husai_core.kinds.common import same_rows

if TYPE_CHECKING:
    from torch import Tensor

    from husai_core.stability.seed_group import SeedGroup

Cfg = Mapping[str, Any]
PARTS = ("train", "validation", "test")
PORTS = ("mlp_input", "mlp_output")
HOOKS = {
    "mlp_input": ("ln2.hook_out", "ln2.hook_normalized", "mlp.hook_in", "hook_resid_mid"),
    "mlp_output": ("hook_mlp_out", "mlp.hook_out"),
}
"""Where the input and the output of an MLP can be read; the usual one first."""


@dataclass(frozen=True)
class Rows:
    """Rows by split, of an SAE's input (`source`) and of what a transcoder makes of it (`target`)."""

    source: dict[str, Tensor]
    target: dict[str, Tensor]


def layer_of(hook_name: str) -> str:
    """The block in which a hook lies.

    Raises:
        UserError: it lies in none.
    """
    layer = re.match(r"blocks\.(\d+)\.", hook_name)
    if layer is None:
        raise UserError(f"the SAEs' hook {hook_name!r} lies in no block, so it has no MLP to compare with")
    return layer.group(1)


def check(sae: Cfg, bound: Mapping[str, Cfg]) -> None:
    """Refuse activations that are not of the MLP of an SAE's layer; each is given by its `cfg.json`, by port.

    Raises:
        UserError: what does not fit, and what to do.
    """
    layer = layer_of(sae["husai"].get("hook_name") or "unknown")
    for port, cfg in bound.items():
        names = [f"blocks.{layer}.{hook}" for hook in HOOKS[port]]
        if cfg["hook_name"] not in names:
            raise UserError(f"{port} is of {cfg['hook_name']!r}, but the SAEs' layer needs {names[0]} or its like")
    source, target = (bound[port] for port in PORTS)
    same_rows.check_same("mlp_output", target, source, ("source", "model_digest", "position"))
    same_rows.check_sizes("mlp_output", target, source)
    if not sae["husai"].get("imported"):
        same_rows.check_same("mlp_input", source, sae["husai"], ("model_digest", "position"))


def of_artifacts(inputs: Inputs, group: SeedGroup) -> tuple[list[str], Rows]:
    """The hooks and rows of activations of the MLP of the SAEs' layer.

    Raises:
        UserError: they do not fit the SAEs, or each other.
    """
    from husai_core.activations.store import load

    paths = [inputs.one(port).path for port in PORTS]
    cfgs = [json.loads((path / "cfg.json").read_bytes()) for path in paths]
    said = {"imported": group.imported, "hook_name": group.hook_name, "position": group.position}
    check(
        {"husai": said | {"model_digest": group.saes[0].provenance["model_digest"]}},
        dict(zip(PORTS, cfgs, strict=True)),
    )
    source, target = (load(path) for path in paths)
    same_rows.check_tokens("mlp_output", target, source)
    rows = [{split: stored.part(split)[:] for split in PARTS} for stored in (source, target)]
    return [source.hook_name, target.hook_name], Rows(*rows)


def of_network(
    inputs: Inputs, group: SeedGroup, fractions: tuple[float, float], seed: int, device: str
) -> tuple[list[str], Rows]:
    """The hooks and rows of the MLP of the SAEs' layer, of all pairs that a network adds, newly split.

    `fractions` are the shares of validation and test rows.

    Raises:
        UserError: the SAEs lie in no block, or do not fit the network.
    """
    from husai_core.data import modular as data
    from husai_core.models import modular

    path = inputs.one("transformer").path
    cfg, layer = modular.read_config(path), layer_of(group.hook_name)
    inside = "hook_resid_mid" if cfg["normalization_type"] is None else "ln2.hook_normalized"
    hooks = [f"blocks.{layer}.{name}" for name in (inside, "hook_mlp_out")]
    tokens = data.pairs(cfg["dataset"]["p"]).tokens
    activations = modular.activations(modular.load(path, device), tokens, [*hooks, group.hook_name], group.position)
    group.check_width(activations[group.hook_name].shape[1])
    split = data.split(len(tokens), *fractions, seed)
    rows = [{name: activations[hook][split == i] for i, name in enumerate(PARTS)} for hook in hooks]
    return hooks, Rows(*rows)


def controls(rows: Rows, seed: int) -> dict[str, Rows]:
    """Rows that hold no features.

    `shuffled`: every dimension of inputs and targets is permuted on its own, so that nothing of a target can be told
    from its input. `covariance`: Gaussian rows of input and target with their joint covariance over the training rows,
    so that the best linear map between them is there to be learned, and nothing else.
    """
    import torch

    from husai_core.stability import nulls

    joint = {split: torch.cat([rows.source[split], rows.target[split]], dim=1) for split in PARTS}
    drawn = {split: nulls.covariance_matched(values, joint["train"], seed, split) for split, values in joint.items()}
    width = rows.source["train"].shape[1]
    return {
        "shuffled": Rows(
            {split: nulls.shuffled(values, seed, split) for split, values in rows.source.items()},
            {split: nulls.shuffled(values, seed, f"target {split}") for split, values in rows.target.items()},
        ),
        "covariance": Rows(
            {split: values[:, :width] for split, values in drawn.items()},
            {split: values[:, width:] for split, values in drawn.items()},
        ),
    }
