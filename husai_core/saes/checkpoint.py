"""SAE checkpoints: `sae_weights.safetensors` and `cfg.json` as SAELens 6 lays them out.

What SAELens can run, it can load with `SAE.load_from_disk`. TopK transcoders and TopK SAEs without ReLU keep
architecture names of our own, which SAELens refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from husai_core.identity import canonical
from husai_core.kinds.base import KindError
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
PARAMETERS = ("W_enc", "b_enc", "W_dec", "b_dec")
TRANSCODERS = ("transcoder", "husai_topk_transcoder")
ARCHITECTURES = {
    "topk": "topk",
    "standard": "relu",
    "jumprelu": "jumprelu",
    "transcoder": "relu",
    "husai_topk_transcoder": "topk",
    "husai_signed_topk": "topk",
}


def save(sae: SAE, directory: Path, provenance: Mapping[str, Any]) -> None:
    """Write `sae` into `directory`; `provenance` (recipe, seed, hook_name, digests) becomes the `husai` entry.

    The bytes depend on nothing but the arguments.
    """
    names = PARAMETERS if sae.threshold is None else (*PARAMETERS, "threshold")
    tensors = {name: getattr(sae, name).detach().float().cpu().contiguous() for name in names}
    save_file(tensors, directory / WEIGHTS)
    (directory / CONFIG).write_bytes(canonical(_config(sae) | {"husai": dict(provenance)}))


def load(directory: Path) -> SAE:
    """The SAE in `directory`, fp32 on the CPU, written by `save` or by SAELens 6.

    Raises:
        KindError: a file is damaged, a shape is wrong, or SAELens has a feature there that we cannot run.
    """
    try:
        cfg = json.loads((directory / CONFIG).read_bytes())
        tensors = {name: tensor.float() for name, tensor in load_file(directory / WEIGHTS).items()}
    except (ValueError, SafetensorError) as error:
        raise KindError(f"the checkpoint cannot be read: {error}") from error
    name = _supported(cfg)
    sae = SAE(
        architecture=ARCHITECTURES[name],  # type: ignore[arg-type]
        **{parameter: _tensor(tensors, parameter) for parameter in PARAMETERS},
        threshold=_tensor(tensors, "threshold") if name == "jumprelu" else None,
        k=cfg.get("k") if ARCHITECTURES[name] == "topk" else None,
        apply_b_dec_to_input=cfg.get("apply_b_dec_to_input", True),
        relu_after_topk=name != "husai_signed_topk",
        transcoder=name in TRANSCODERS,
        hook_name=cfg.get("metadata", {}).get("hook_name"),
        provenance=cfg.get("husai", {}),
    )
    check(sae)
    return _with_unit_norms(sae) if cfg.get("rescale_acts_by_decoder_norm") else sae


def recipe(sae: SAE) -> SAERecipe:
    """The recipe that trained a loaded SAE.

    Raises:
        KindError: the checkpoint does not say, as an imported one.
    """
    if "recipe" not in sae.provenance:
        raise KindError("the checkpoint does not say how it was trained, so its training cannot be repeated")
    return SAERecipe.model_validate(sae.provenance["recipe"])


def check(sae: SAE) -> None:
    """Raise KindError unless shapes fit together, all weights are finite and k is possible."""
    (d_in, d_sae), d_out = sae.W_enc.shape, sae.W_dec.shape[-1]
    shapes = {"b_enc": (d_sae,), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
    if sae.threshold is not None:
        shapes["threshold"] = (d_sae,)
    for name, shape in shapes.items():
        if tuple(getattr(sae, name).shape) != shape:
            raise KindError(f"{name} has shape {tuple(getattr(sae, name).shape)}, but W_enc asks for {shape}")
    if d_in != d_out and (sae.apply_b_dec_to_input or not sae.transcoder):
        raise KindError(f"the SAE reads {d_in} dimensions and writes {d_out}")
    for name in ("W_enc", *shapes):
        if not torch.isfinite(getattr(sae, name)).all():
            raise KindError(f"{name} contains NaN or infinity")
    if sae.architecture == "topk" and not (isinstance(sae.k, int) and 1 <= sae.k <= d_sae):
        raise KindError(f"k = {sae.k} is impossible with {d_sae} latents")


def _config(sae: SAE) -> dict[str, Any]:
    """The SAELens part of `cfg.json`; the version says which layout it is."""
    cfg = {
        "architecture": architecture(sae),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": sae.hook_name, "sae_lens_version": "6.0.0"},
    }
    if sae.transcoder:
        cfg["d_out"] = sae.W_dec.shape[1]
    return cfg | ({"k": sae.k, "rescale_acts_by_decoder_norm": False} if sae.architecture == "topk" else {})


def architecture(sae: SAE) -> str:
    """The architecture that `cfg.json` names."""
    if sae.architecture == "topk":
        if sae.transcoder:
            return "husai_topk_transcoder"
        return "topk" if sae.relu_after_topk else "husai_signed_topk"
    if sae.architecture == "jumprelu":
        return "jumprelu"
    return "transcoder" if sae.transcoder else "standard"


def _supported(cfg: Any) -> str:
    """The architecture that `cfg.json` names, if we run it as SAELens does."""
    name = cfg.get("architecture") if isinstance(cfg, dict) else None
    if name not in ARCHITECTURES:
        raise KindError(f"cfg.json names architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    if not isinstance(cfg.get("husai", {}), dict):
        raise KindError("the husai entry of cfg.json is not an object")
    if cfg.get("normalize_activations", "none") != "none":
        raise KindError(f"normalize_activations {cfg['normalize_activations']!r} must be folded into the weights first")
    if cfg.get("activation_fn_str", "relu") != "relu":
        raise KindError("a SAELens checkpoint from before version 6 must be saved again by SAELens 6")
    return str(name)


def _tensor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise KindError(f"{WEIGHTS} has no tensor {name}")
    if tensors[name].ndim != (2 if name.startswith("W") else 1):
        raise KindError(f"{name} has {tensors[name].ndim} axes")
    return tensors[name]


def _with_unit_norms(sae: SAE) -> SAE:
    """The same function with unit decoder rows, where SAELens scales pre-activations by the rows' norms."""
    norms = sae.W_dec.norm(dim=-1)
    sae.W_enc, sae.b_enc, sae.W_dec = sae.W_enc * norms, sae.b_enc * norms, sae.decoder
    return sae
