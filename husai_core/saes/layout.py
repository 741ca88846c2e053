"""How `cfg.json` of a checkpoint names architectures. Light: no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from husai_core.saes.sae import Architecture

SELECTING = ("topk", "switch")
"""Architectures with a number `k` of active latents."""
THRESHOLDED = ("batchtopk", "matryoshka")
"""Architectures of recipes whose checkpoints are JumpReLU SAEs."""
SIGNED = "husai_signed_topk"
NAMES: dict[tuple[Architecture, bool], str] = {
    ("topk", False): "topk",
    ("relu", False): "standard",
    ("jumprelu", False): "jumprelu",
    ("gated", False): "gated",
    ("switch", False): "husai_switch",
    ("topk", True): "husai_topk_transcoder",
    ("relu", True): "transcoder",
    ("jumprelu", True): "jumprelu_transcoder",
    ("gated", True): "husai_gated_transcoder",
    ("switch", True): "husai_switch_transcoder",
}
"""The name of an architecture, as an SAE or as a transcoder, in `cfg.json`."""
ARCHITECTURES = {name: key for key, name in NAMES.items()} | {SIGNED: ("topk", False)}
