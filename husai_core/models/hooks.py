"""The hooks of a network, as far as its configuration tells them: to refuse a wrong one before anything is loaded.

TransformerLens names them; tests hold the names here against loaded networks. Light: no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from husai_core import assets
from husai_core.errors import UserError

COMMON = re.compile(r"blocks\.0\.(hook_(resid_(pre|mid|post)|attn_out|mlp_out)|attn\.hook_z|mlp\.hook_post)")
"""The hooks that are named where none is near."""
NEAREST, CUTOFF = 4, 0.7
Names = dict[str, str]
"""By module, the hooks in it, one after another."""
NORM = "hook_normalized hook_scale"
MODULAR_BLOCK: Names = {
    "": "hook_attn_out hook_mlp_out hook_resid_mid hook_resid_post hook_resid_pre",
    "attn.": "hook_k hook_q hook_v hook_z",
    "mlp.": "hook_post hook_pre",
}
MODULAR_ENDS: Names = {"": "hook_embed hook_pos_embed", "unembed.": "hook_in hook_out"}
ENDS_IN = "hook_in hook_out"
LANGUAGE_NORM = f"{ENDS_IN} {NORM}"
LANGUAGE_BLOCK: Names = {
    "": f"{ENDS_IN} hook_attn_out hook_mlp_out hook_resid_post hook_resid_pre",
    "attn.": f"{ENDS_IN} hook_cos hook_hidden_states hook_k hook_q hook_sin hook_v hook_z",
    **dict.fromkeys(("attn.k.", "attn.o.", "attn.q.", "attn.v.", "mlp.in.", "mlp.out."), ENDS_IN),
    **dict.fromkeys(("ln1.", "ln2."), LANGUAGE_NORM),
    "mlp.": f"{ENDS_IN} hook_post hook_pre",
}
LANGUAGE_ENDS: Names = {
    "": "hook_embed hook_unembed",
    "embed.": "hook_out",
    "ln_final.": LANGUAGE_NORM,
    "rotary_emb.": "hook_cos hook_in hook_sin",
    "unembed.": ENDS_IN,
}
WIDTHS = {
    ("d_model", "hidden_size"): re.compile(r"hook_(resid_\w+|attn_out|mlp_out|embed)"),
    ("d_mlp", "intermediate_size"): re.compile(r"mlp\.hook_(pre|post)"),
}
"""By the fields of a configuration that may say how wide a hook is, the ends of such hooks' names."""


def known(cfg: Mapping[str, Any]) -> list[str]:
    """The hooks with one vector per token of a network for addition, or of a text model trained here.

    Args:
        cfg: its `cfg.json`, or the `config.json` of a built-in model.

    Returns:
        their names; none where the configuration does not tell.
    """
    recipe = cfg.get("dataset", {}).get("recipe", {})
    if layers := recipe.get("n_layers") or cfg.get("num_hidden_layers"):
        return _names(LANGUAGE_BLOCK, LANGUAGE_ENDS, layers)
    if "normalization_type" not in cfg or not is_for_addition(cfg):
        return []
    normalised = cfg["normalization_type"] is not None
    norms, final = ({"ln1.": NORM, "ln2.": NORM}, {"ln_final.": NORM}) if normalised else ({}, {})
    return _names(MODULAR_BLOCK | norms, MODULAR_ENDS | final, cfg["n_layers"])


def is_for_addition(cfg: Mapping[str, Any]) -> bool:
    """Whether a `cfg.json` is that of a network for addition, rather than of a language model."""
    return cfg.get("architecture") in (None, "HookedTransformer")


def _names(block: Names, ends: Names, layers: int) -> list[str]:
    places = [(f"blocks.{layer}.", block) for layer in range(layers)] + [("", ends)]
    return [
        f"{place}{module}{hook}"
        for place, modules in places
        for module, hooks in modules.items()
        for hook in hooks.split()
    ]


def built_in(model: str) -> Mapping[str, Any]:
    """The configuration of a built-in model; nothing of any other."""
    if model not in assets.models():
        return {}
    cfg: dict[str, Any] = json.loads((assets.HOME / model / "config.json").read_bytes())
    return cfg


def check(names: Sequence[str], cfg: Mapping[str, Any]) -> None:
    """Refuse hooks that a network is known not to have, or not to have one vector per token at.

    Raises:
        UserError: it names the ones that are nearest.
    """
    hooks = known(cfg)
    layers = len({hook.split(".")[1] for hook in hooks if hook.startswith("blocks.")})
    for name in names if hooks else ():
        if name not in hooks:
            raise UserError(unknown(name, hooks, layers))


def width(name: str, cfg: Mapping[str, Any]) -> int | None:
    """How wide a hook of a network is, where its configuration tells."""
    last_words = ".".join(name.split(".")[2:]) if name.startswith("blocks.") else name
    names = [name for fields, pattern in WIDTHS.items() if pattern.fullmatch(last_words) for name in fields]
    shapes = (cfg, cfg.get("dataset", {}).get("recipe", {}))
    return next((int(shape[name]) for shape in shapes for name in names if shape.get(name)), None)


def unknown(name: str, hooks: Collection[str], n_layers: int) -> str:
    """What is said of a hook that does not exist: the nearest ones, or those of the first block."""
    last_words = {hook.rpartition(".")[2]: hook for hook in reversed(list(hooks))}
    words = get_close_matches(name.rpartition(".")[2], last_words, n=NEAREST, cutoff=CUTOFF)
    nearest = get_close_matches(name, hooks, n=NEAREST, cutoff=CUTOFF) or [last_words[word] for word in words]
    if nearest:
        return f"the network has no hook {name!r}; the nearest are {', '.join(nearest)} (it has {n_layers} layers)"
    common = [hook for hook in hooks if COMMON.fullmatch(hook)]
    return f"the network has no hook {name!r}; in each of its {n_layers} layers it has {', '.join(common)}"
