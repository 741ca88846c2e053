"""SAELens: `sae_weights.safetensors` and `cfg.json`, the layout that HUSAI writes itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from husai_core.importers.imported import Imported
from husai_core.importers.values import agree, check_safetensors, checked, read_json
from husai_core.saes import checkpoint


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


def read(weights: Path, config: Path) -> Imported:
    """The checkpoint, once its `cfg.json` and the types of its tensors are what `checkpoint.load` expects."""
    said = read_json(config)
    cfg = checked(config.name, _Config, checkpoint.current(said) if isinstance(said, dict) else said)
    check_safetensors(weights)
    sae = checkpoint.load(weights.parent)
    agree(config.name, "d_in", cfg.d_in, sae.d_in)
    agree(config.name, "d_sae", cfg.d_sae, sae.d_sae)
    return Imported(weights.name, "husai" if "recipe" in sae.provenance else "saelens", sae, "sae")
