"""Small TransformerLens networks for modular addition: build, store, load, and read activations at one position."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from husai_core.data.modular import LENGTH, POSITIONS, vocabulary
from husai_core.errors import UserError
from husai_core.identity import canonical
from husai_core.models.model import Hook, Model, batches
from husai_core.seeding import generator

SIGNS = ("BOS", "EOS", "=", "+")
"""The tokens behind the digits."""
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
    cfg: dict[str, Any] = json.loads((directory / "cfg.json").read_bytes())
    if cfg.get("architecture") not in (None, "HookedTransformer"):
        raise UserError("the transformer is a language model, not a network for modular addition")
    return cfg


def load(directory: Path, device: str = "cpu") -> HookedTransformer:
    """The network of a transformer artifact.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    model = build(read_config(directory), 0, device)
    weights = load_file(directory / "model.safetensors")
    expected = {name: value.shape for name, value in model.named_parameters()}
    if {name: value.shape for name, value in weights.items()} != expected:
        raise UserError("the transformer's weights do not fit its cfg.json")
    model.load_state_dict(weights, strict=False)
    return model


@dataclass(frozen=True)
class ModularNetwork(Model):
    """A network for modular addition behind the interface of all models; `position` is where it says the sum."""

    network: HookedTransformer
    position: str = "answer"

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.network.cfg.d_model

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.network.cfg.n_layers

    @property
    def n_ctx(self) -> int:
        """Most tokens of a sequence."""
        return self.network.cfg.n_ctx

    @property
    def d_vocab(self) -> int:
        """Number of different tokens."""
        return self.network.cfg.d_vocab

    def inputs(self, tokens: Tensor) -> Tensor:
        """The tokens up to where the sum is said."""
        return tokens[:, : POSITIONS[self.position] + 1]

    def targets(self, tokens: Tensor) -> Tensor:
        """The sum [n, 1]."""
        return tokens[:, POSITIONS["answer_token"]][:, None]

    def untrained(self, seed: int, keep_embeddings: bool = False) -> ModularNetwork:
        """A network of the same shape with fresh weights; it may keep the embeddings of tokens and places."""
        cfg = self.network.cfg
        fresh = build({name: getattr(cfg, name) for name in SHAPE}, seed, str(cfg.device))
        if keep_embeddings:
            fresh.embed.load_state_dict(self.network.embed.state_dict())
            fresh.pos_embed.load_state_dict(self.network.pos_embed.state_dict())
        return ModularNetwork(fresh, self.position)

    @property
    def unembedding(self) -> Tensor:
        """What makes logits of the last residual stream [d_model, d_vocab]."""
        return self.network.W_U.detach()

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Digits, then BOS, EOS, = and +, of a network without other tokens."""
        p = self.d_vocab - len(SIGNS)
        return [str(token) if token < p else SIGNS[token - p] for token in tokens]

    def has_hook(self, name: str) -> bool:
        """Whether there is a hook of this name, whatever it gives."""
        return name in self.network.hook_dict

    @torch.no_grad()
    def _logits(self, inputs: Tensor, hooks: Sequence[Hook]) -> Tensor:
        logits: Tensor = self.network.run_with_hooks(inputs.to(self.network.cfg.device), fwd_hooks=list(hooks))
        return logits[:, -1:]

    @torch.no_grad()
    def _values(self, tokens: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        values = dict[str, Tensor]()

        def keep(value: Tensor, hook: Any) -> None:
            if hook.name in values:
                raise UserError(f"hook {hook.name!r} gives more than one vector per position")
            values[hook.name] = value

        wanted: list[Hook] = [(name, keep) for name in hooks]
        tokens = tokens.to(self.network.cfg.device)
        self.network.run_with_hooks(tokens, return_type=None, fwd_hooks=wanted, stop_at_layer=_last_layer(hooks))
        return values

    @torch.no_grad()
    def _everything(self, tokens: Tensor) -> dict[str, Tensor]:
        return dict(self.network.run_with_cache(tokens.to(self.network.cfg.device))[1])


def logits(model: HookedTransformer, tokens: Tensor, position: str = "answer", batch_size: int = 4096) -> Tensor:
    """Logits [n, vocabulary] read at `position` from whole sequences [n, length], on the CPU."""
    at = POSITIONS[position]
    with torch.no_grad():
        return torch.cat([model(batch.to(model.cfg.device))[:, at].cpu() for batch in batches(tokens, batch_size)])


def activations(
    model: HookedTransformer, tokens: Tensor, hook_names: Sequence[str], position: str, batch_size: int = 4096
) -> dict[str, Tensor]:
    """Activations at hooks, for each hook fp32 [n, width] on the CPU, as by `Model.read` at a named position."""
    return ModularNetwork(model).read(tokens, hook_names, POSITIONS[position], batch_size)


def _last_layer(hook_names: Sequence[str]) -> int | None:
    """Where the forward pass may stop: behind the last hooked block, or None when a hook lies behind all blocks."""
    layers = [re.match(r"blocks\.(\d+)\.", name) for name in hook_names]
    outside = [name for name, layer in zip(hook_names, layers, strict=True) if layer is None and "embed" not in name]
    if any("unembed" in name for name in hook_names) or outside:
        return None
    return max((int(layer.group(1)) + 1 for layer in layers if layer), default=0)
