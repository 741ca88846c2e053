"""dictionary_learning: `ae.pt`, a state dictionary, and `config.json`, whose `trainer.dict_class` says what it means.

Linear layers hold [out, in], so encoders are [d_sae, d_in] and features are columns of decoders. The library's own
loader scales the latents of `AutoEncoder` by the norms of their decoder rows, and so does this one. BatchTopK and
Matryoshka SAEs have one threshold for all latents, which a TopK SAE does not use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from husai_core.errors import UserError
from husai_core.importers import claims
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported
from husai_core.importers.values import agree, checked, plain, read_json, read_pt, real
from husai_core.saes import checkpoint
from husai_core.saes.sae import PARAMETERS, SAE, Architecture, scale_by_decoder_norms
from husai_core.seeding import generator

LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
GATED = {"b_gate": "gate_bias", "b_mag": "mag_bias", "b_dec": "decoder_bias"}
CLASSES: dict[str, tuple[Architecture, dict[str, str]]] = {
    "AutoEncoder": ("relu", LINEAR | {"b_dec": "bias"}),
    "AutoEncoderNew": ("relu", LINEAR | {"b_dec": "decoder.bias"}),
    "AutoEncoderTopK": ("topk", LINEAR),
    "BatchTopKSAE": ("jumprelu", LINEAR),
    "MatryoshkaBatchTopKSAE": ("jumprelu", {}),
    "JumpReluAutoEncoder": ("jumprelu", {}),
    "GatedAutoEncoder": ("gated", LINEAR | GATED),
}
"""The architecture of each class, and the names of its tensors where they are not ours."""
WITHOUT_PRE_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")
SCALED_BY_NORMS = ("AutoEncoder",)
WITH_ONE_THRESHOLD = ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
STEP = re.compile(r"ae_(\d{1,15})\.pt")
"""The dictionary of a step of a training."""
ROWS = 4096
"""Gaussian rows on which the latents of an SAE without a threshold are counted."""
BUFFERS = {"k", "threshold", "group_sizes"}
"""Buffers that any class may have, beside the tensors of its function."""


class _Trainer(BaseModel):
    model_config = ConfigDict(strict=True)

    dict_class: str
    activation_dim: int | None = Field(None, ge=1)
    dict_size: int | None = Field(None, ge=1)
    k: int | None = Field(None, ge=1)


class _Config(BaseModel):
    """The types of what is read of `config.json`."""

    trainer: _Trainer


class _State(BaseModel):
    model_config = ConfigDict(strict=True)

    k: int | None


def read(weights: Path, config: Path, folder: Folder | None = None) -> Imported:
    """The SAE of any class in `CLASSES`, whatever else lies in its folder."""
    said = read_json(config)
    trainer = checked(config.name, _Config, said).trainer
    if trainer.dict_class not in CLASSES:
        known = ", ".join(CLASSES)
        raise UserError(f"{config.name}: dict_class {trainer.dict_class[:80]!r} cannot be run; known are {known}")
    state = read_pt(weights)
    if isinstance(state, dict) and isinstance(state.get("ae"), dict):  # a backup, with the optimiser's state beside
        state = state["ae"]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{weights.name} is not a dictionary of tensors")
    architecture, _ = CLASSES[trainer.dict_class]
    sae = SAE(
        architecture=architecture,
        **_parameters(weights.name, trainer.dict_class, state),
        k=_k(weights.name, trainer.k, state) if architecture == "topk" else None,
        apply_b_dec_to_input=trainer.dict_class not in WITHOUT_PRE_BIAS,
        provenance={"config": plain(said)},
    )
    checkpoint.check(sae)
    agree(config.name, "activation_dim", trainer.activation_dim, sae.d_in)
    agree(config.name, "dict_size", trainer.dict_size, sae.d_sae)
    if trainer.dict_class in SCALED_BY_NORMS:
        scale_by_decoder_norms(sae)
    sae.hook_name = claims.hook_of_module(said["trainer"].get("layer"), said["trainer"].get("submodule_name"))
    notes = _notes(sae, trainer) if trainer.dict_class in WITH_ONE_THRESHOLD else ()
    step = STEP.fullmatch(weights.name)
    training = claims.dictionary_learning(said, int(step[1]) if step else None)
    return Imported(weights.name, "dictionary_learning", sae, "sae", notes=notes, training=training)


def describes(config: Path) -> bool:
    """Whether a `config.json` is that of a dictionary, rather than another program's."""
    try:
        said = read_json(config)
    except UserError:
        return True  # reading it as one says what is wrong
    return isinstance(said, dict) and isinstance(said.get("trainer"), dict)


def _notes(sae: SAE, trainer: _Trainer) -> tuple[str, ...]:
    """What must be known of a threshold that training had not set yet: it lets every positive latent pass."""
    if sae.threshold is None or bool((sae.threshold >= 0).any()):
        return ()
    rows = torch.randn(ROWS, sae.d_in, generator=generator(0, "threshold"))
    active = float((sae.encode(rows) != 0).sum(1).float().mean())
    said = "" if trainer.k is None else f", not the k = {trainer.k} that the file names"
    return (
        f"its threshold was never set (it is {float(sae.threshold[0]):g}), so every positive latent is active: on "
        f"Gaussian rows about {active:.1f} of {sae.d_sae} per row{said}; train past threshold_start_step",
    )


def _parameters(name: str, dict_class: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The SAE's tensors under our names, in our orientation."""
    architecture, theirs = CLASSES[dict_class]
    names = {ours: theirs.get(ours, ours) for ours in PARAMETERS[architecture]}
    if missing := [key for key in names.values() if key not in state]:
        raise UserError(f"{name} has no tensor {missing[0]}")
    if unknown := sorted(state.keys() - set(names.values()) - BUFFERS):
        raise UserError(f"{name} has a tensor {unknown[0][:80]!r}, which {dict_class} does not have")
    tensors: dict[str, Tensor] = {}
    for ours, key in names.items():
        tensor = real(name, key, state[key])
        if ours == "threshold" and not tensor.ndim:
            tensor = tensor.expand(len(tensors["b_enc"])).clone()
        if tensor.ndim != (2 if ours.startswith("W") else 1):
            raise UserError(f"{name}: {key} has {tensor.ndim} axes")
        tensors[ours] = tensor.T.contiguous() if key.endswith(".weight") else tensor
    return tensors


def _k(name: str, said: int | None, state: Mapping[str, Tensor]) -> int | None:
    """The number of active latents, which both files may say."""
    kept = checked(name, _State, {"k": plain(state["k"]) if "k" in state else None}).k
    if said is not None and kept not in (None, said):
        raise UserError(f"{name} has k = {kept}, but config.json says {said}")
    return said if kept is None else kept
