"""SAELens: `sae_weights.safetensors` and `cfg.json`, the layout that HUSAI writes itself.

`runner_cfg.json` beside them says how the SAE was trained. Trainings leave checkpoints of the same layout, with the
state to go on from; those of some architectures are in a form that exists in training only.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from husai_core.errors import UserError
from husai_core.importers import claims
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported
from husai_core.importers.values import agree, check_safetensors, checked, plain, read_json
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE

RUNNER, STATE = "runner_cfg.json", "trainer_state.pt"
FILES = {checkpoint.WEIGHTS, checkpoint.CONFIG}
STEP = re.compile(r"\d+")
"""The folder of a checkpoint of a training; that of the last one begins with `final_`."""


class _Metadata(BaseModel):
    model_config = ConfigDict(strict=True)

    hook_name: str | None = None
    hook_head_index: int | None = Field(None, ge=0)


class _Claims(BaseModel):
    position: str | None = None


class _Config(BaseModel):
    """The types of what is read of a SAELens `cfg.json`."""

    model_config = ConfigDict(strict=True)

    architecture: str
    d_in: int | None = Field(None, ge=1)
    d_sae: int | None = Field(None, ge=1)
    k: int | None = Field(None, ge=1)
    apply_b_dec_to_input: bool = True
    rescale_acts_by_decoder_norm: bool = False
    normalize_activations: str = "none"
    reshape_activations: str = "none"
    metadata: _Metadata = _Metadata()
    husai: _Claims = _Claims()


def read(weights: Path, config: Path, folder: Folder) -> Imported:
    """The checkpoint, once its `cfg.json` and the types of its tensors are what `checkpoint.load` expects."""
    said = read_json(config)
    cfg = checked(config.name, _Config, checkpoint.current(said) if isinstance(said, dict) else said)
    check_safetensors(weights)
    sae = checkpoint.load(weights.parent)
    agree(config.name, "d_in", cfg.d_in, sae.d_in)
    agree(config.name, "d_sae", cfg.d_sae, sae.d_sae)
    if "recipe" in sae.provenance:
        half, beside_it = _half(sae, folder)
        training = claims.husai(sae.provenance)
        return Imported(weights.name, "husai", sae, "sae", training=training, beside=beside_it, half=half)
    beside = [folder.files[RUNNER]] if RUNNER in folder.files else []
    runner = plain(read_json(beside[0])) if beside else None
    training = claims.saelens(checkpoint.current(said), runner)
    if is_state(folder) and STEP.fullmatch(folder.name.rpartition("/")[2]):
        training = replace(training, step=int(folder.name.rpartition("/")[2]))
    if not sae.provenance:
        sae.provenance = {"config": plain(said)} | ({"runner": runner} if beside else {})
    return Imported(weights.name, "saelens", sae, "sae", training=training, beside=tuple(beside))


def _half(sae: SAE, folder: Folder) -> tuple[SAE | None, tuple[Path, ...]]:
    """The SAE at half the tokens that our checkpoints keep in a folder below, and its files."""
    if not folder.half.keys() >= FILES:
        return None, ()
    files = folder.half[checkpoint.WEIGHTS], folder.half[checkpoint.CONFIG]
    half = read(*files, Folder(dict(folder.half))).value
    if not isinstance(half, SAE) or half.W_enc.shape != sae.W_enc.shape:
        raise UserError(f"{checkpoint.HALF} holds no SAE of the same shape")
    return half, files


def is_state(folder: Folder) -> bool:
    """Whether a folder is what a training left to go on from, with the SAE as it was then."""
    return STATE in folder.files and checkpoint.WEIGHTS in folder.files
