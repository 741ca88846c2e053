"""What the files beside an SAE say of its training, in the fields of our recipe.

Nothing here is believed: it is kept as a claim. Fields that the files do not say are left out, and settings that no
field of a recipe can hold are listed in the notes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from husai_core.saes.recipe import SPARSITY, SAERecipe

SAELENS = {
    "standard": "relu",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "matryoshka",
    "gated": "gated",
    "jumprelu": "jumprelu",
}
DICTIONARY_LEARNING = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "matryoshka",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}
"""Our names of the architectures."""
PLACES = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attention_out": "hook_attn_out"}
"""How dictionary_learning's names of submodules begin, and TransformerLens' names of the same places."""
SAELENS_USUAL = {
    "lr_scheduler_name": "constant",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "from_pretrained_path": None,
    "autocast": False,
}
SPARSIFY_USUAL = {
    "optimizer": "adam",
    "loss_fn": "fvu",
    "k_decay_steps": 0,
    "finetune": None,
    "exclude_tokens": [],
}
"""Settings that no field of a recipe holds, unless they have these values."""


@dataclass(frozen=True)
class Claim:
    """Fields of `SAERecipe` that files say, notes on what it cannot hold, the seed, and the step of a training."""

    recipe: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seed: int | None = None
    step: int | None = None


def saelens(cfg: Mapping[str, Any], runner: Any) -> Claim:
    """What `runner_cfg.json`, or a `cfg.json` from before version 6, and what `cfg.json` itself says."""
    training = runner if isinstance(runner, dict) else cfg
    metadata = _object(cfg, "metadata")
    sae = {**cfg, **_object(metadata, "training_architecture_details"), **_object(training, "sae")}
    name = _object(training, "sae").get("architecture", metadata.get("training_architecture"))
    name = cfg.get("architecture") if name is None and cfg.get("architecture") != "jumprelu" else name
    tokens, batch = _whole(training, "training_tokens"), _whole(training, "train_batch_size_tokens")
    steps = tokens / batch if tokens and batch else None
    penalty = "l0_warm_up_steps" if name == "jumprelu" else "l1_warm_up_steps"
    window, normalised = _whole(training, "dead_feature_window"), sae.get("normalize_activations")
    widths = sae.get("matryoshka_widths")
    fields = {
        "architecture": SAELENS.get(str(name)),
        "d_sae": _whole(cfg, "d_sae"),
        "k": _whole(sae, "k"),
        "target_l0": _number(sae, "target_l0") or _number(metadata, "l0"),
        "bandwidth": _number(sae, "jumprelu_bandwidth"),
        "prefixes": [width for width in widths if width != sae.get("d_sae")] if isinstance(widths, list) else None,
        "tokens": tokens,
        "batch_size": batch,
        "lr": _number(training, "lr"),
        "warmup_fraction": _share(_number(training, "lr_warm_up_steps"), steps),
        "decay_fraction": _share(_number(training, "lr_decay_steps"), steps),
        "sparsity_warmup_fraction": _share(_number(sae, penalty), steps),
        "dead_after_tokens": window * batch if window and batch else None,
        "normalise": None if tokens is None or normalised is None else normalised == "expected_average_only_in",
    }
    weights = ("l1_coefficient", "l0_coefficient", "aux_loss_coefficient")
    return _claim(fields, _other(training, SAELENS_USUAL) | _scaled(sae, weights), _whole(training, "seed"))


def sparsify(cfg: Mapping[str, Any], run: Any, seed: int | None) -> Claim:
    """What `cfg.json` and the run's `config.json` say; how many steps there were stands in neither."""
    training = run if isinstance(run, dict) else {}
    d_in = _whole(cfg, "d_in") or 0
    fields = {
        "architecture": "topk",
        "d_sae": _whole(cfg, "num_latents") or d_in * (_whole(cfg, "expansion_factor") or 0) or None,
        "k": _whole(cfg, "k"),
        "lr": _number(training, "lr"),
        "aux_coefficient": _number(training, "auxk_alpha"),
        "dead_after_tokens": _whole(training, "dead_feature_threshold"),
        "normalise": False if training else None,
    }
    other = _other(training, SPARSIFY_USUAL) | _scaled(training, ("lr_warmup_steps",))
    if cfg.get("multi_topk"):
        other["multi_topk"] = True
    return _claim(fields, other, seed)


def dictionary_learning(said: Mapping[str, Any], step: int | None) -> Claim:
    """What the trainer's entry of `config.json` says; the batch size stands there where a buffer gave the rows."""
    trainer = _object(said, "trainer")
    steps, batch = _whole(trainer, "steps"), _whole(_object(said, "buffer"), "out_batch_size")
    start, groups = _whole(trainer, "decay_start"), trainer.get("group_sizes")
    whole = isinstance(groups, list) and all(isinstance(group, int) for group in groups)
    falling = steps - start if steps and start else 0
    fields = {
        "architecture": DICTIONARY_LEARNING.get(str(trainer.get("dict_class"))),
        "d_sae": _whole(trainer, "dict_size"),
        "k": _whole(trainer, "k"),
        "target_l0": _number(trainer, "target_l0"),
        "bandwidth": _number(trainer, "bandwidth"),
        "prefixes": [sum(groups[: i + 1]) for i in range(len(groups) - 1)] if groups and whole else None,
        "tokens": steps * batch if steps and batch else None,
        "batch_size": batch,
        "lr": _number(trainer, "lr"),
        "warmup_fraction": _share(_number(trainer, "warmup_steps"), steps),
        "decay_fraction": _share(falling, steps) if "decay_start" in trainer else None,
        "sparsity_warmup_fraction": _share(_number(trainer, "sparsity_warmup_steps"), steps),
        "aux_coefficient": _number(trainer, "auxk_alpha"),
        "k_aux": _whole(trainer, "top_k_aux"),
    }
    other = _other(trainer, {"resample_steps": None}) | _scaled(trainer, ("l1_penalty", "sparsity_penalty"))
    return _claim(fields, other, _whole(trainer, "seed"), step)


def husai(provenance: Mapping[str, Any]) -> Claim:
    """What HUSAI wrote of a training of its own."""
    known = {name: value for name, value in _object(provenance, "recipe").items() if name in SAERecipe.model_fields}
    return _claim(known, {}, _whole(provenance, "seed"))


def hook_of_module(layer: Any, module: Any) -> str | None:
    """TransformerLens' name of the place that dictionary_learning names by a layer and a submodule."""
    if not isinstance(layer, int) or isinstance(layer, bool) or not isinstance(module, str):
        return None
    return next((f"blocks.{layer}.{hook}" for begin, hook in PLACES.items() if module.startswith(begin)), None)


def _claim(fields: Mapping[str, Any], other: Mapping[str, Any], seed: int | None, step: int | None = None) -> Claim:
    """The fields that are said and that the architecture reads, if they are a recipe together."""
    said = {name: value for name, value in fields.items() if value is not None}
    sparsity = SPARSITY.get(str(said.get("architecture")))
    said = {name: value for name, value in said.items() if name not in SPARSITY.values() or name == sparsity}
    notes = [f"no field of a recipe holds {', '.join(f'{k} = {v}' for k, v in other.items())}"] if other else []
    if sparsity is None:
        return Claim({}, tuple(notes), seed, step)
    try:
        recipe = SAERecipe.model_validate({sparsity: 1, **said})
    except ValidationError as error:
        reason = " ".join(error.errors()[0]["msg"].split())
        return Claim({}, (*notes, f"what its files say of its training is no recipe here: {reason}"[:300]), seed, step)
    unread = recipe.unread([recipe.architecture])
    read = {name: value for name, value in said.items() if name not in unread}
    return Claim(read, tuple(notes), seed, step)


def _other(said: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with another value than the usual one."""
    return {name: _short(said[name]) for name, value in usual.items() if name in said and said[name] != value}


def _scaled(said: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Settings in units of their own library."""
    return {name: said[name] for name in names if _number(said, name)}


def _short(value: Any) -> str:
    return str(value)[:60]


def _share(some: float | None, steps: float | None) -> float | None:
    return min(1.0, some / steps) if some is not None and steps else None


def _object(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _number(said: Mapping[str, Any], name: str) -> float | None:
    value = said.get(name)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return value if usable else None


def _whole(said: Mapping[str, Any], name: str) -> int | None:
    value = _number(said, name)
    return int(value) if value is not None and value == int(value) else None
