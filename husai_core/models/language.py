"""Causal language models in the Hugging Face layout, read through TransformerLens.

TransformerLens' bridge wraps the Hugging Face model and gives it hook points (`blocks.3.hook_resid_post`, ...), without
folding LayerNorm or centring weights: activations are those of the original model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from husai_core import assets
from husai_core.data import text
from husai_core.errors import MissingAssets, UserError
from husai_core.identity import digest

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model: TransformerLens' bridge, the tokeniser, and the digest of the files."""

    bridge: TransformerBridge
    tokenizer: PreTrainedTokenizerBase
    digest: str

    @property
    def n_ctx(self) -> int:
        """Most tokens per sequence."""
        return int(self.bridge.cfg.n_ctx)

    def sequences(self, documents: Sequence[text.Document], context: int) -> text.Sequences:
        """The documents as windows of `context` tokens.

        Raises:
            UserError: the model cannot read that many tokens.
        """
        if context > self.n_ctx:
            raise UserError(f"a context of {context} tokens is more than the {self.n_ctx} that the model can read")
        encode = partial(self.tokenizer.encode, add_special_tokens=False, verbose=False)
        ids = (encode(document.text) for document in documents)
        return text.windows(ids, context, self.tokenizer.bos_token_id, self.tokenizer.all_special_ids)

    @torch.no_grad()
    def activations(self, tokens: Tensor, hook_names: Sequence[str]) -> dict[str, Tensor]:
        """Activations of sequences int64 [n, context] at hooks, for each [n, context, d] on the model's device.

        One forward pass serves all hooks and ends at the last of them.

        Raises:
            UserError: the model has no such hook, or does not give one vector per position there.
        """
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        found = dict[str, Tensor]()

        def keep(value: Tensor, hook: Any, name: str) -> None:
            found[name] = value
            if len(found) == len(hook_names):
                raise StopAtLayerException(value)

        for name in hook_names:
            if name not in self.bridge.hook_dict:
                raise UserError(f"the model has no hook {name!r}")
        hooks: list[tuple[str | Callable[..., Any], Callable[..., Any]]] = [
            (name, partial(keep, name=name)) for name in hook_names
        ]
        self.bridge.run_with_hooks(tokens.to(self.bridge.cfg.device), fwd_hooks=hooks, use_cache=False)
        for name in hook_names:
            shape = list(found[name].shape) if name in found else "nothing"
            if shape == "nothing" or len(shape) != 3 or shape[:2] != list(tokens.shape):
                raise UserError(f"hook {name!r} gives {shape}, not one vector per position")
        return found


def find(name: str) -> Path:
    """The directory of a built-in model, or of a model in the local Hugging Face cache.

    Nothing is downloaded unless the environment says `HUSAI_ALLOW_DOWNLOAD=1`.

    Raises:
        MissingAssets: the model is not here yet; the message says how to get it.
        UserError: the name is none of a model.
    """
    if not assets.HUB_ID.fullmatch(name):
        raise UserError(_no_name(name))
    if directory := assets.locate(name):
        return directory
    allowed, wanted = assets.may_download(), assets.asset(name)
    if allowed:
        with suppress(OSError, ValueError):
            return assets.download(name)
    cause = "could not be downloaded" if allowed else "is not in the local Hugging Face cache"
    raise MissingAssets(f"the model {name} {cause}; get it with: {wanted.how}", [wanted])


def _no_name(name: str) -> str:
    """Why a name is none of a model; of a path, how its files become a model here."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return f"{name!r} looks like a folder: import it with `husai import {name}`, and give its transformer as input"
    return f"{name!r} is neither a built-in model ({', '.join(assets.models())}) nor a Hugging Face id"


def load(directory: Path, device: str = "cpu") -> LanguageModel:
    """The model in a directory in the Hugging Face layout, in fp32.

    Raises:
        UserError: a file is missing or the model cannot be read.
    """
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if missing := [pattern for pattern in assets.MODEL_FILES if not any(directory.glob(pattern))]:
        raise UserError(
            f"the model's directory holds no {', '.join(missing)}: it is no language model with safetensors"
        )
    local: dict[str, Any] = {"local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **local)
        how = {"attn_implementation": "eager", "use_safetensors": True, "dtype": torch.float32}
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(directory, **local, **how)
        model.to(device).eval()
        bridge = TransformerBridge.boot_transformers(str(directory), hf_model=model, tokenizer=tokenizer, device=device)
    except Exception as error:  # transformers raises many types for what it cannot read
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the language model cannot be read: {reason}") from error
    return LanguageModel(bridge, tokenizer, _digest(directory))


def _digest(directory: Path) -> str:
    """Digest of the files that decide what the model computes."""
    files = dict[str, str]()
    for path in sorted(path for pattern in assets.MODEL_FILES for path in directory.glob(pattern)):
        with path.open("rb") as file:
            files[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest(files)
