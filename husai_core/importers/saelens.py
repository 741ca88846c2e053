"""SAELens 6: `sae_weights.safetensors` and `cfg.json`, the layout that HUSAI writes itself."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from husai_core.importers.imported import Found
from husai_core.importers.values import agree, check_safetensors, checked, read_json
from husai_core.saes import checkpoint


class _Metadata(BaseModel):
    hook_name: str | None = None


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
    metadata: _Metadata = _Metadata()
    husai: _Claims = _Claims()


def read(weights: Path, config: Path) -> Found:
    """The checkpoint, once its `cfg.json` and the types of its tensors are what `checkpoint.load` expects."""
    asked = checked(config.name, _Config, read_json(config))
    check_safetensors(weights)
    sae = checkpoint.load(weights.parent)
    agree(config.name, "d_in", asked.d_in, sae.d_in)
    agree(config.name, "d_sae", asked.d_sae, sae.d_sae)
    return Found(weights.name, "husai" if "recipe" in sae.provenance else "saelens", sae, "sae")
