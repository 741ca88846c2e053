"""SAE checkpoints: `sae_weights.safetensors` and `cfg.json` as SAELens 6 lays them out.

What SAELens can run, it can load with `SAE.load_from_disk`. Everything else keeps an architecture name of our own,
`husai_*`, which SAELens refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from husai_core.errors import UserError, is_host_fault
from husai_core.identity import canonical
from husai_core.saes.layout import ARCHITECTURES, NAMES, SELECTING, SIGNED
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import PARAMETERS, SAE, Reshape, scale_by_decoder_norms

WEIGHTS, CONFIG, HALF = "sae_weights.safetensors", "cfg.json", "half"
FOLDABLE = ("expected_average_only_in", "covariance_whitening")
"""Normalisations of SAELens that one map describes, which the checkpoint does not hold."""
TRAINING_FORMS = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of SAELens that exist in training only: saved for inference, they are JumpReLU SAEs."""
RESHAPES = get_args(Reshape)


def save(sae: SAE, directory: Path, provenance: Mapping[str, Any], half: SAE | None = None) -> None:
    """Write `sae` into `directory`; `provenance` (recipe, seed, hook_name, digests) becomes the `husai` entry.

    `half`, the same training's SAE at half the tokens, goes into the folder `half` with its own provenance. The bytes
    depend on nothing but the arguments.
    """
    tensors = {name: getattr(sae, name).detach().float().cpu().contiguous() for name in PARAMETERS[sae.architecture]}
    save_file(tensors, directory / WEIGHTS)
    (directory / CONFIG).write_bytes(canonical(_config(sae) | {"husai": dict(provenance)}))
    if half is not None:
        (directory / HALF).mkdir(exist_ok=True)
        save(half, directory / HALF, half.provenance)


def load(directory: Path) -> SAE:
    """The SAE in `directory`, fp32 on the CPU, written by `save` or by SAELens.

    Raises:
        UserError: a file is damaged, a shape is wrong, or SAELens has a feature there that we cannot run.
    """
    try:
        cfg = current(json.loads((directory / CONFIG).read_bytes()))
        tensors = {name: tensor.float() for name, tensor in load_file(directory / WEIGHTS).items()}
    except (ValueError, SafetensorError) as error:
        if is_host_fault(error):
            raise
        raise UserError(f"the checkpoint cannot be read: {error}") from error
    name = _supported(cfg)
    architecture, transcoder = ARCHITECTURES[name]
    sae = SAE(
        architecture=architecture,
        **_parameters(tensors, name),
        k=cfg.get("k") if architecture in SELECTING else None,
        apply_b_dec_to_input=cfg.get("apply_b_dec_to_input", True),
        relu_after_topk=name != SIGNED,
        transcoder=transcoder,
        hook_name=cfg["metadata"].get("hook_name"),
        hook_head_index=cfg["metadata"].get("hook_head_index"),
        reshape_activations=cfg["reshape_activations"],
        provenance=cfg.get("husai", {}),
    )
    check(sae)
    if cfg.get("rescale_acts_by_decoder_norm"):
        scale_by_decoder_norms(sae)
    return sae


def load_half(directory: Path) -> SAE | None:
    """The SAE that the same training gave at half the tokens; None where the checkpoint has none.

    Raises:
        UserError: see `load`.
    """
    return load(directory / HALF) if (directory / HALF / CONFIG).is_file() else None


def recipe(sae: SAE) -> SAERecipe:
    """The recipe that trained a loaded SAE.

    Raises:
        UserError: the checkpoint does not say, as an imported one, or an objective took part that is not in the recipe.
    """
    if "recipe" not in sae.provenance:
        raise UserError("the checkpoint does not say how it was trained, so its training cannot be repeated")
    if "objective" in sae.provenance:
        name = sae.provenance["objective"]
        raise UserError(f"the SAE was trained with the objective {name!r}, which its recipe alone does not repeat")
    return SAERecipe.model_validate(sae.provenance["recipe"])


def check(sae: SAE) -> None:
    """Raise UserError unless shapes fit together, all weights are finite and k is possible."""
    (d_in, d_sae), d_out = sae.W_enc.shape, sae.W_dec.shape[-1]
    experts = 1 if sae.W_router is None else sae.W_router.shape[-1]
    special = {"W_dec": (d_sae, d_out), "b_dec": (d_out,), "W_router": (d_in, experts), "b_router": (d_in,)}
    for name in PARAMETERS[sae.architecture][1:]:
        shape, wanted = tuple(getattr(sae, name).shape), special.get(name, (d_sae,))
        if shape != wanted:
            raise UserError(f"{name} has shape {shape}, but W_enc asks for {wanted}")
    if sae.transcoder and sae.apply_b_dec_to_input:
        raise UserError("a transcoder cannot subtract b_dec, which belongs to its output, from its input")
    if d_in != d_out and not sae.transcoder:
        raise UserError(f"the SAE reads {d_in} dimensions and writes {d_out}")
    for name in PARAMETERS[sae.architecture]:
        if not torch.isfinite(getattr(sae, name)).all():
            raise UserError(f"{name} contains NaN or infinity")
    if d_sae % experts:
        raise UserError(f"{d_sae} latents cannot be shared equally by {experts} experts")
    if sae.architecture in SELECTING and sae.k is None:
        raise UserError(f"the configuration of a {sae.architecture} SAE lacks k, its active latents per row")
    if sae.architecture in SELECTING and not (isinstance(sae.k, int) and 1 <= sae.k <= d_sae // experts):
        raise UserError(f"k = {sae.k} is impossible with {d_sae // experts} latents")


def _config(sae: SAE) -> dict[str, Any]:
    """The SAELens part of `cfg.json`; the version says which layout it is."""
    metadata: dict[str, Any] = {"hook_name": sae.hook_name, "sae_lens_version": "6.0.0"}
    if sae.reshape_activations != "none" or sae.hook_head_index is not None:
        metadata["hook_head_index"] = sae.hook_head_index
    cfg = {
        "architecture": architecture(sae),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": sae.reshape_activations,
        "metadata": metadata,
    }
    if sae.transcoder:
        cfg["d_out"] = sae.W_dec.shape[1]
    if sae.architecture in SELECTING:
        cfg["k"] = sae.k
    return cfg | ({"rescale_acts_by_decoder_norm": False} if sae.architecture == "topk" else {})


def architecture(sae: SAE) -> str:
    """The architecture that `cfg.json` names."""
    return NAMES[sae.architecture, sae.transcoder] if sae.relu_after_topk else SIGNED


def current(said: Any) -> dict[str, Any]:
    """What a `cfg.json` says, in the fields of SAELens 6.

    Before that version, what is now `metadata` stood beside the rest (the hook's name first as `hook_point`), the
    architecture could be left out, and `normalize_activations` could be true or false. None is no normalisation.

    Raises:
        ValueError: it is no object.
    """
    if not isinstance(said, dict):
        raise ValueError("cfg.json is no JSON object")
    cfg: dict[str, Any] = dict(said)
    if isinstance(cfg.get("normalize_activations"), bool):
        cfg["normalize_activations"] = FOLDABLE[0] if cfg["normalize_activations"] else "none"
    cfg["normalize_activations"] = cfg.get("normalize_activations") or "none"
    earlier = "metadata" not in cfg and any(name in cfg for name in ("hook_name", "hook_point"))
    if earlier:
        hook_name = cfg.get("hook_name", cfg.get("hook_point"))
        cfg["metadata"] = {
            "hook_name": hook_name,
            "hook_head_index": cfg.get("hook_head_index", cfg.get("hook_point_head_index")),
        }
        cfg.setdefault("architecture", "standard")
        cfg.setdefault("reshape_activations", "hook_z" if "hook_z" in str(hook_name) else "none")
        if cfg["architecture"] == "topk" and isinstance(cfg.get("activation_fn_kwargs"), dict):
            cfg.setdefault("k", cfg["activation_fn_kwargs"].get("k"))
    cfg.setdefault("metadata", {})
    cfg["reshape_activations"] = cfg.get("reshape_activations") or "none"
    return cfg


def _supported(cfg: Mapping[str, Any]) -> str:
    """The architecture that `cfg.json` names, if we run it as SAELens does."""
    name = cfg.get("architecture")
    if name in TRAINING_FORMS:
        raise UserError(
            f"cfg.json names architecture {name!r}, the form of an SAE in training; save the form for inference with "
            "SAELens: TrainingSAE.load_from_disk(FOLDER).save_inference_model(NEW_FOLDER)"
        )
    if name not in ARCHITECTURES:
        raise UserError(f"cfg.json names architecture {name!r}; known are {', '.join(ARCHITECTURES)}")
    if not isinstance(cfg.get("husai", {}), dict):
        raise UserError("the husai entry of cfg.json is not an object")
    normalisation = cfg["normalize_activations"]
    if normalisation in FOLDABLE:
        raise UserError(f"normalize_activations {normalisation!r} must be folded into the weights first, by SAELens")
    if normalisation != "none":
        raise UserError(f"normalize_activations {normalisation!r} differs from row to row and cannot be folded away")
    if cfg["reshape_activations"] not in RESHAPES:
        raise UserError(f"reshape_activations {cfg['reshape_activations']!r} is unknown; known are {RESHAPES}")
    function = cfg.get("activation_fn_str", cfg.get("activation_fn", "relu"))
    if function not in (("relu", "topk") if name == "topk" else ("relu",)):
        raise UserError(f"a {name} SAE with the activation function {function!r} must be saved again by SAELens 6")
    return str(name)


def _parameters(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """The tensors of the architecture that `cfg.json` names, if the file holds these and no others."""
    names = PARAMETERS[ARCHITECTURES[name][0]]
    scale = tensors.get("scaling_factor")  # SAELens wrote ones here for a time
    if scale is not None and bool((scale == 1).all()):
        tensors = {key: tensor for key, tensor in tensors.items() if key != "scaling_factor"}
    if missing := [key for key in names if key not in tensors]:
        raise UserError(f"{WEIGHTS} has no tensor {missing[0]}")
    if unknown := sorted(tensors.keys() - set(names)):
        raise UserError(f"{WEIGHTS} has a tensor {unknown[0][:80]!r}, which a {name} SAE does not have")
    for key in names:
        if tensors[key].ndim != (2 if key.startswith("W") else 1):
            raise UserError(f"{key} has {tensors[key].ndim} axes")
    return {key: tensors[key] for key in names}
