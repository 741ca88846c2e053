"""Causal language models in the Hugging Face layout, read through TransformerLens.

TransformerLens' bridge wraps the Hugging Face model and gives it hook points (`blocks.3.hook_resid_post`, ...), without
folding LayerNorm or centring weights: activations are those of the original model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from husai_core import assets
from husai_core.data import text
from husai_core.errors import MissingAssets, UserError, is_host_fault
from husai_core.identity import digest, sha256
from husai_core.models.model import Hook, Model
from husai_core.seeding import generator

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

MOST_LAYERS = 256
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that decide how text becomes tokens, as far as a model has them."""


@dataclass(frozen=True)
class LanguageModel(Model):
    """A loaded model: TransformerLens' bridge, and the tokeniser as its files say.

    `digest` names the weights, whatever files they lie in; `tokenizer_digest` the files that make tokens of text.
    """

    bridge: TransformerBridge
    tokenizer: PreTrainedTokenizerBase
    digest: str
    tokenizer_digest: str

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.bridge.cfg.d_model)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return int(self.bridge.cfg.n_layers)

    @property
    def n_ctx(self) -> int:
        """Most tokens of a sequence."""
        return int(self.bridge.cfg.n_ctx)

    @property
    def d_vocab(self) -> int:
        """Number of different tokens."""
        return int(self.bridge.cfg.d_vocab)

    @property
    def bos(self) -> int | None:
        """The token that begins a sequence, where the tokeniser has one."""
        bos: int | None = self.tokenizer.bos_token_id
        return bos

    def prepends_bos(self, choice: bool | None) -> bool:
        """Whether sequences begin with the beginning-of-sequence token; without a choice, where there is one.

        Raises:
            UserError: it is asked for, but the tokeniser has none.
        """
        if choice and self.bos is None:
            raise UserError("the model's tokeniser has no beginning-of-sequence token, so prepend_bos cannot be true")
        return self.bos is not None if choice is None else choice

    def sequences(
        self, documents: Sequence[text.TextFile], context: int, prepend_bos: bool | None = None
    ) -> text.Sequences:
        """The documents as windows of `context` tokens; `prepend_bos` as in `prepends_bos`.

        Raises:
            UserError: the model cannot read that many tokens, or has no token to prepend.
        """
        if context > self.n_ctx:
            raise UserError(f"a context of {context} tokens is more than the {self.n_ctx} that the model can read")
        bos = self.bos if self.prepends_bos(prepend_bos) else None
        encode = partial(self.tokenizer.encode, add_special_tokens=False, verbose=False)
        ids = (encode(document.text) for document in documents)
        return text.windows(ids, context, bos, self.tokenizer.all_special_ids)

    def inputs(self, tokens: Tensor) -> Tensor:
        """All tokens."""
        return tokens

    def targets(self, tokens: Tensor) -> Tensor:
        """Every token but the first [n, t - 1]."""
        return tokens[:, 1:]

    def untrained(self, seed: int, keep_embeddings: bool = False) -> LanguageModel:
        """The model with fresh weights as its architecture draws them; it may keep the embeddings.

        Those of tokens and, where places have embeddings, of places; with tied embeddings, the unembedding, too. The
        global random state is left as it was.
        """
        from transformers import AutoModelForCausalLM

        trained = self.bridge.original_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(seed, "weights").initial_seed())
            how = {"attn_implementation": "eager", "dtype": torch.float32}
            fresh = AutoModelForCausalLM.from_config(trained.config, **how)  # type: ignore[no-untyped-call]
        if keep_embeddings:
            with torch.no_grad():
                for old, new in zip(_embeddings(trained), _embeddings(fresh), strict=True):
                    new.weight.copy_(old.weight)
        identity = digest({"untrained": self.digest, "seed": seed, "keep_embeddings": keep_embeddings})
        bridge = _bridge(fresh, str(self.bridge.cfg.device), self.tokenizer)
        return LanguageModel(bridge, self.tokenizer, identity, self.tokenizer_digest)

    @property
    def unembedding(self) -> Tensor:
        """What makes logits of the last residual stream behind its LayerNorm [d_model, d_vocab]."""
        model: Any = self.bridge.original_model
        weight: Tensor = model.get_output_embeddings().weight
        return weight.detach().T

    def words(self, tokens: Sequence[int]) -> list[str]:
        """Each of some tokens as the tokeniser writes it."""
        return [str(self.tokenizer.decode([token])) for token in tokens]

    def has_hook(self, name: str) -> bool:
        """Whether there is a hook of this name, whatever it gives."""
        return name in self.bridge.hook_dict

    @torch.no_grad()
    def _logits(self, inputs: Tensor, hooks: Sequence[Hook]) -> Tensor:
        inputs = inputs.to(self.bridge.cfg.device)
        logits: Tensor = self.bridge.run_with_hooks(
            inputs, fwd_hooks=list(hooks), return_type="logits", use_cache=False
        )
        return logits[:, :-1]

    @torch.no_grad()
    def _values(self, tokens: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        values = dict[str, Tensor]()

        def keep(value: Tensor, hook: Any, name: str) -> None:
            values[name] = value
            if len(values) == len(hooks):
                raise StopAtLayerException(value)

        wanted: list[Hook] = [(name, partial(keep, name=name)) for name in hooks]
        self.bridge.run_with_hooks(tokens.to(self.bridge.cfg.device), fwd_hooks=wanted, use_cache=False)
        return values

    @torch.no_grad()
    def _everything(self, tokens: Tensor) -> dict[str, Tensor]:
        cache = self.bridge.run_with_cache(tokens.to(self.bridge.cfg.device), use_cache=False)[1]
        return {name: value for name, value in cache.cache_dict.items() if isinstance(value, Tensor)}


def find(name: str) -> Path:
    """The directory of a built-in model, or of one in the worker's mirror or Hugging Face cache.

    Nothing is downloaded unless the environment says `HUSAI_ALLOW_DOWNLOAD=1`.

    Raises:
        MissingAssets: the model is not here yet; the message says which files are missing and how to get them.
        UserError: the name is none of a model, or its download failed.
    """
    if problem := assets.name_problem(name):
        raise UserError(problem)
    if directory := assets.locate(name):
        return directory
    if assets.may_download():
        return assets.download(name)
    wanted, files = assets.asset(name), ", ".join(assets.missing_files(name))
    raise MissingAssets(
        f"the model {name} is not whole on this machine (missing: {files}); get it with: {wanted.how}", [wanted]
    )


def load(directory: Path, device: str = "cpu") -> LanguageModel:
    """The model in a directory in the Hugging Face layout, in fp32.

    Raises:
        UserError: a file is missing or the model cannot be read.
    """
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
        loaded: Any = AutoModelForCausalLM.from_pretrained(directory, **local, **how, output_loading_info=True)
        model, loading = loaded
        if absent := sorted(loading["missing_keys"]):
            raise ValueError(f"its files hold no weights for {', '.join(absent[:3])}")
        bridge = _bridge(model, device, tokenizer)
    except Exception as error:  # transformers raises many types for what it cannot read
        if is_host_fault(error):
            raise
        raise UserError(_unreadable(error)) from error
    return LanguageModel(bridge, tokenizer, weights_digest(directory), _tokenizer_digest(directory))


def check(directory: Path) -> None:
    """Refuse a model whose configuration asks for far more than its files hold, before any memory is taken for it.

    Raises:
        UserError: it does, or the configuration describes no language model.
    """
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        if config.num_hidden_layers > MOST_LAYERS:
            raise ValueError(f"{config.num_hidden_layers} layers are more than {MOST_LAYERS}")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        held = 0
        for path in directory.glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                held += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        wanted = sum(parameter.numel() for parameter in model.parameters())
        if wanted > 2 * held:  # tied weights are stored once
            raise ValueError(f"config.json describes {wanted} parameters, but the files hold {held}")
    except Exception as error:  # transformers raises many types for what it cannot read
        if is_host_fault(error):
            raise
        raise UserError(_unreadable(error)) from error


def _unreadable(error: Exception) -> str:
    """One line about why a model cannot be read."""
    return f"the language model cannot be read: {' '.join(str(error).split())[:200]}"


def _bridge(model: torch.nn.Module, device: str, tokenizer: PreTrainedTokenizerBase) -> TransformerBridge:
    """The model with hook points.

    The bridge gives its tokeniser the special tokens that it lacks, so it gets a copy that nothing else reads.
    """
    from transformer_lens.model_bridge import TransformerBridge

    model.to(device).eval()
    name, own_copy = str(model.config.name_or_path), deepcopy(tokenizer)  # type: ignore[union-attr]
    with torch.random.fork_rng(devices=[]):  # it draws weights that it then throws away
        return TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=own_copy, device=device)


def _embeddings(model: torch.nn.Module) -> list[torch.nn.Embedding]:
    """The embeddings of tokens and of places."""
    return [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]


def weights_digest(directory: Path) -> str:
    """Digest of the weights alone: of each tensor's name, type, shape and bytes, however they are spread over files."""
    from safetensors import safe_open

    tensors = dict[str, str]()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                kind = f"{tensor.dtype} {list(tensor.shape)} ".encode()
                tensors[name] = sha256(kind + tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest(tensors)


def _tokenizer_digest(directory: Path) -> str:
    """Digest of the files that decide how text becomes tokens."""
    return digest(
        {name: sha256((directory / name).read_bytes()) for name in TOKENIZER_FILES if (directory / name).is_file()}
    )
