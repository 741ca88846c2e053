"""HUSAI's own artifacts: activations and transformers; its SAEs lie in the SAELens layout."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from husai_core.kinds.base import KindError
from husai_core.saes.formats.found import Found
from husai_core.saes.formats.values import finite, read_json


def read(weights: Path, config: Path) -> Found:
    """An artifact of ours, whose tensors are whole and finite; its own loader reads it on import."""
    if not isinstance(read_json(config), dict):
        raise KindError(f"the {config.name} beside {weights.name} is not an object")
    try:
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise KindError(f"{weights.name} cannot be read: {error}") from error
    finite(weights.name, tensors)
    what = "activations" if weights.stem == "activations" else "transformer"
    return Found(weights.name, "husai", weights.parent, what)
