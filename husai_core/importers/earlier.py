"""The earlier HUSAI layout: a `.pt` file.

It holds an SAE with `encoder.weight` [n, d], `encoder.bias` and `decoder.weight` [d, n] (features are columns), a
transformer with TransformerLens weights, or a tensor of activations [n, d] beside its `.meta.pt`. Its TopK keeps the k
largest signed pre-activations, without ReLU and without biases on the input or output; that function is kept exactly,
under an architecture that SAELens refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from husai_core.errors import UserError
from husai_core.importers import networks
from husai_core.importers.imported import BareRows, Imported, ModularWeights
from husai_core.importers.values import BUFFERS, MOST_WIDTH, checked, plain, read_pt, real, reals
from husai_core.models.modular import SHAPE
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE

SAE_KEYS = {"encoder.weight", "encoder.bias", "decoder.weight"}
ALIASES: dict[str, Literal["topk", "relu"]] = {"topk": "topk", "relu": "relu", "standard": "relu"}
FIELDS = {"d_vocab": "vocab_size", "n_ctx": "max_seq_len", "act_fn": "activation"}
"""Other names of a network's fields."""
READ = "a .pt file is read if the earlier HUSAI wrote it, or dictionary_learning with config.json beside it"
POSITIONS = {"answer": "answer_token"}
"""What the names of positions meant."""


class _Entry(BaseModel):
    """The types of the plain values that are read of an earlier `.pt` file."""

    model_config = ConfigDict(strict=True)

    architecture: str | None
    k: int | None


class _Meta(BaseModel):
    """The types of what is read of a `.meta.pt`."""

    model_config = ConfigDict(strict=True)

    layer: int | None = Field(None, ge=0)
    position: str | None = None


def read(path: Path, meta: Path | None = None) -> Imported:
    """A `.pt` file of the earlier HUSAI layout; `meta` is the `.meta.pt` beside cached activations."""
    content = read_pt(path)
    if isinstance(content, Tensor):
        said = plain(read_pt(meta)) if meta else {}
        return Imported(path.name, "earlier", _rows(path.name, content, said), "activations", said)
    if not isinstance(content, dict):
        raise UserError(f"{path.name} holds neither a tensor nor a dictionary; {READ}")
    state = content.get("sae_state_dict", content.get("model_state_dict"))
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path.name} has neither sae_state_dict nor model_state_dict; {READ}")
    if state.keys() >= SAE_KEYS:
        return Imported(path.name, "earlier", _sae(path.name, state, content), "sae")
    if "embed.W_E" in state:
        claimed = {key: plain(content[key]) for key in ("epoch", "metrics") if key in content}
        return Imported(path.name, "earlier", _transformer(path.name, state, content), "transformer", claimed)
    raise UserError(f"{path.name} holds neither an SAE nor a TransformerLens network; {READ}")


def _sae(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> SAE:
    weights = {key: real(name, key, state[key]) for key in (*sorted(SAE_KEYS), "decoder.bias") if key in state}
    if weights["encoder.weight"].ndim != 2 or weights["decoder.weight"].ndim != 2:
        raise UserError(f"{name}: encoder.weight and decoder.weight are matrices")
    W_enc, W_dec = weights["encoder.weight"].T.contiguous(), weights["decoder.weight"].T.contiguous()
    if W_enc.T.shape != W_dec.shape:
        raise UserError(
            f"{name}: encoder {tuple(W_enc.T.shape)} and decoder {tuple(W_dec.T.shape)} do not fit together"
        )
    config = _config(name, content)
    k = plain(content.get("k", state.get("k", _setting(config, "k"))))
    k = int(k) if isinstance(k, float) and k.is_integer() else k
    said = checked(name, _Entry, {"k": k, "architecture": _setting(config, "architecture")})
    named = said.architecture or ("relu" if said.k is None else "topk")
    if named not in ALIASES:
        raise UserError(f"{name}: architecture {named!r} cannot be run; known are {', '.join(ALIASES)}")
    architecture, bias = ALIASES[named], weights.get("decoder.bias", torch.zeros(W_dec.shape[1]))
    sae = SAE(
        architecture=architecture,
        W_enc=W_enc,
        b_enc=weights["encoder.bias"],
        W_dec=W_dec,
        b_dec=bias,
        k=said.k if architecture == "topk" else None,
        apply_b_dec_to_input=False,
        relu_after_topk=architecture != "topk",
        provenance={"config": config, "metrics": plain(content.get("metrics", {}))},
    )
    checkpoint.check(sae)
    return sae


def _config(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    config = content.get("config")
    if config is not None and not isinstance(config, dict):
        raise UserError(f"{name}: config is not a dictionary")
    return {} if config is None else plain(config)


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of the SAE, whether `config` is its own or the whole experiment's."""
    nested = config.get("sae")
    return config.get(name, nested.get(name) if isinstance(nested, dict) else None)


def _transformer(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> ModularWeights:
    config = _config(name, content)
    if not config:
        raise UserError(f"{name} has no config, so the network cannot be rebuilt")
    weights = reals(name, {key: value for key, value in state.items() if not key.endswith(BUFFERS)})
    return ModularWeights(networks.fitting(name, _shape(name, config), weights), weights, "answer_token", True)


def _shape(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The TransformerLens fields of a config, whether it is the network's own or the whole experiment's."""
    inner = config.get("transformer", config)
    if not isinstance(inner, dict):
        raise UserError(f"{name}: config.transformer is not a dictionary")
    shape = {field: inner.get(field, inner.get(FIELDS.get(field, field))) for field in SHAPE}
    shape["normalization_type"] = inner.get("normalization_type", "LN")
    width, heads = shape["d_model"], shape["n_heads"]
    if shape["d_head"] is None and isinstance(width, int) and isinstance(heads, int) and heads > 0:
        shape["d_head"] = width // heads
    return {field: value for field, value in shape.items() if value is not None}


def _rows(name: str, tensor: Tensor, said: Any) -> BareRows:
    rows, meta = real(name, "rows", tensor).contiguous(), checked(f"{name}: its .meta.pt", _Meta, said)
    if rows.ndim != 2 or len(rows) < 10 or rows.shape[1] > MOST_WIDTH:
        raise UserError(
            f"{name} holds a tensor of shape {tuple(rows.shape)}; activations are "
            f"[at least 10 rows, width of at most {MOST_WIDTH}]"
        )
    return BareRows(rows, meta.layer, meta.position and POSITIONS.get(meta.position, meta.position))
