"""SAELens: `sae_weights.safetensors` and `cfg.json`, the layout that HUSAI writes itself.

`runner_cfg.json` beside them says how the SAE was trained. Trainings leave checkpoints of the same layout, with the
state to go on from; those of some architectures are in a form that exists in training only.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from husai_core.importers import claims
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported
from husai_core.importers.values import agree, check_safetensors, checked, plain, read_json
from husai_core.saes import checkpoint

RUNNER, STATE = "runner_cfg.json", "trainer_state.pt"
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
        return Imported(weights.name, "husai", sae, "sae", training=claims.husai(sae.provenance))
    beside = [folder.files[RUNNER]] if RUNNER in folder.files else []
    runner = plain(read_json(beside[0])) if beside else None
    training = claims.saelens(checkpoint.current(said), runner)
    if is_state(folder) and STEP.fullmatch(folder.name.rpartition("/")[2]):
        training = replace(training, step=int(folder.name.rpartition("/")[2]))
    if not sae.provenance:
        sae.provenance = {"config": plain(said)} | ({"runner": runner} if beside else {})
    return Imported(weights.name, "saelens", sae, "sae", training=training, beside=tuple(beside))


def is_state(folder: Folder) -> bool:
    """Whether a folder is what a training left to go on from, with the SAE as it was then."""
    return STATE in folder.files and checkpoint.WEIGHTS in folder.files
