"""Small TransformerLens networks for modular addition: build, store, load, and read activations at one position."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from husai_core.data.modular import LENGTH, POSITIONS, vocabulary
from husai_core.errors import UserError
from husai_core.identity import canonical
from husai_core.seeding import generator

SHAPE = ("n_layers", "d_model", "n_heads", "d_head", "d_mlp", "n_ctx", "d_vocab", "act_fn", "normalization_type")


def config(
    p: int, n_layers: int, d_model: int, n_heads: int, d_mlp: int, act_fn: str, normalization_type: str | None
) -> dict[str, Any]:
    """The TransformerLens fields that define a network for modulus `p`."""
    size = {"n_layers": n_layers, "d_model": d_model, "n_heads": n_heads, "d_head": d_model // n_heads, "d_mlp": d_mlp}
    reading = {"n_ctx": LENGTH, "d_vocab": vocabulary(p)}
    return size | reading | {"act_fn": act_fn, "normalization_type": normalization_type}


def build(cfg: Mapping[str, Any], seed: int, device: str = "cpu") -> HookedTransformer:
    """An untrained network; `cfg` is `config(...)` or a transformer artifact's `cfg.json` (extra fields are ignored).

    The global random state is left as it was.
    """
    shape = {name: cfg[name] for name in SHAPE}
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(generator(seed, "weights").initial_seed())
        model = HookedTransformer(HookedTransformerConfig(**shape, device="cpu"), move_to_device=False)
    model.cfg.device = device
    model.to(device, print_details=False).eval()
    return model


def save(directory: Path, model: HookedTransformer, cfg: Mapping[str, Any]) -> None:
    """Write `model.safetensors` (the parameters, under their TransformerLens names) and `cfg.json`."""
    parameters = {name: value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    save_file(parameters, directory / "model.safetensors")
    (directory / "cfg.json").write_bytes(canonical(dict(cfg)))


def read_config(directory: Path) -> dict[str, Any]:
    """The `cfg.json` of a transformer artifact: network fields, `dataset` and `leaks_label`.

    Raises:
        UserError: the artifact is a language model.
    """
    found: dict[str, Any] = json.loads((directory / "cfg.json").read_bytes())
    if found.get("architecture") not in (None, "HookedTransformer"):
        raise UserError("the transformer is a language model, not a network for modular addition")
    return found


def load(directory: Path, device: str = "cpu") -> HookedTransformer:
    """The network of a transformer artifact.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    model = build(read_config(directory), 0, device)
    weights = load_file(directory / "model.safetensors")
    own = dict(model.named_parameters())
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise UserError("the transformer's weights do not fit its cfg.json")
    model.load_state_dict(weights, strict=False)
    return model


def logits(model: HookedTransformer, tokens: Tensor, position: str = "answer", batch_size: int = 4096) -> Tensor:
    """Logits [n, vocabulary] read at `position` from whole sequences [n, length], on the CPU."""
    at = POSITIONS[position]
    with torch.no_grad():
        return torch.cat([model(part)[:, at].cpu() for part in _batches(model, tokens, batch_size)])


def activations(
    model: HookedTransformer, tokens: Tensor, hook_names: Sequence[str], position: str, batch_size: int = 4096
) -> dict[str, Tensor]:
    """Activations at hooks, for each hook fp32 [n, d] on the CPU.

    The forward pass ends at the last hooked layer and reads no token behind `position` (the network is causal).

    Raises:
        UserError: the network has no such hook, or does not give one vector per position there, once.
    """
    for name in hook_names:
        if name not in model.hook_dict:
            raise UserError(f"the network has no hook {name!r}")
    found: dict[str, list[Tensor]] = {name: [] for name in hook_names}
    at = POSITIONS[position]

    def keep(value: Tensor, hook: Any) -> None:
        if value.ndim != 3 or value.shape[1] != at + 1:
            raise UserError(f"hook {hook.name!r} gives {list(value.shape)}, not one vector per position")
        found[hook.name].append(value[:, at].float().cpu())

    with torch.no_grad():
        for part in _batches(model, tokens[:, : at + 1], batch_size):
            hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = [(name, keep) for name in hook_names]
            model.run_with_hooks(part, return_type=None, fwd_hooks=hooks, stop_at_layer=_last_layer(hook_names))
    for name, parts in found.items():
        if sum(map(len, parts)) != len(tokens):
            raise UserError(f"hook {name!r} gives {sum(map(len, parts))} vectors for {len(tokens)} sequences")
    return {name: torch.cat(parts) for name, parts in found.items()}


def _last_layer(hook_names: Sequence[str]) -> int | None:
    """Where the forward pass may stop: behind the last hooked block, or None when a hook lies behind all blocks."""
    layers = [re.match(r"blocks\.(\d+)\.", name) for name in hook_names]
    outside = [name for name, layer in zip(hook_names, layers, strict=True) if layer is None and "embed" not in name]
    if any("unembed" in name for name in hook_names) or outside:
        return None
    return max((int(layer.group(1)) + 1 for layer in layers if layer), default=0)


def _batches(model: HookedTransformer, tokens: Tensor, size: int) -> Iterator[Tensor]:
    return (tokens[i : i + size].to(model.cfg.device) for i in range(0, len(tokens), size))
