"""The one interface to the networks that are read: language models, and small networks for modular addition."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from husai_core.errors import UserError
from husai_core.models import hooks

Replace = Callable[[Tensor], Tensor]
"""From the activations at a hook [n, t, width] to what the network goes on with there, of the same shape."""
Hook = tuple[str | Callable[..., Any], Callable[..., Any]]
"""The name of a hook point, and what is called with its value."""
HEADS = re.compile(r"\.attn\.(hook_(rot_)?[qkvz]|[qkvo]\.hook_(in|out))$")
"""Hooks with one vector per attention head, which are read side by side as one vector of heads × d_head."""
PROBE_TOKENS = 3


class Model(ABC):
    """A causal network on tokens int64 [n, t], at inference."""

    @property
    @abstractmethod
    def d_model(self) -> int:
        """Width of the residual stream."""

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of blocks."""

    @property
    @abstractmethod
    def n_ctx(self) -> int:
        """Most tokens of a sequence."""

    @property
    @abstractmethod
    def d_vocab(self) -> int:
        """Number of different tokens."""

    @cached_property
    def hooks(self) -> Mapping[str, int]:
        """The hooks that give one vector per token, and its width; heads lie side by side."""
        tokens = torch.zeros(1, min(PROBE_TOKENS, self.n_ctx), dtype=torch.int64)
        values = (
            (name, _one_vector_per_token(name, value, tokens)) for name, value in self._everything(tokens).items()
        )
        return {name: vectors.shape[2] for name, vectors in values if vectors is not None}

    def activations(self, tokens: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Activations of sequences [n, t] at hooks, for each [n, t, width] on the network's device.

        One forward pass serves all hooks and ends at the last of them.

        Raises:
            UserError: the network has no such hook, or does not give one vector per token there.
        """
        self.check_hooks(hooks)
        values, activations = self._values(tokens, hooks), dict[str, Tensor]()
        for name in hooks:
            if name not in values:
                raise UserError(f"hook {name!r} gives nothing, not one vector per position")
            activations[name] = vectors(name, values[name], tokens)
        return activations

    def loss(self, tokens: Tensor) -> Tensor:
        """Cross-entropy in nats of each prediction that is asked for [n, m], on the network's device; see `logits`."""
        return self._loss(self.logits(tokens), tokens)

    def loss_with(self, tokens: Tensor, hook: str, replace: Replace) -> Tensor:
        """The same, with the activations at a hook replaced; see `logits_with`."""
        return self._loss(self.logits_with(tokens, hook, replace), tokens)

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits of each prediction that the network is asked for [n, m, d_vocab], on its device.

        Of a language model those of all tokens but the first (m = t - 1); of a network for addition, that of the sum
        (m = 1).
        """
        return self._logits(self.inputs(tokens), [])

    def logits_with(self, tokens: Tensor, hook: str, replace: Replace) -> Tensor:
        """The same, with the activations at a hook replaced by what `replace` makes of those of `inputs`.

        Raises:
            UserError: the network has no such hook, or does not give one vector per token there.
        """
        self.check_hooks([hook])
        read = self.inputs(tokens)
        change = replacing(hook, replace, read)
        return self._logits(read, [(hook, lambda value, hook: change(value))])

    @abstractmethod
    def inputs(self, tokens: Tensor) -> Tensor:
        """The tokens of sequences [n, t] that are read to make the predictions."""

    @abstractmethod
    def targets(self, tokens: Tensor) -> Tensor:
        """The tokens that should be predicted [n, m]."""

    @abstractmethod
    def untrained(self, seed: int, keep_embeddings: bool = False) -> Self:
        """A network of the same shape with fresh weights; it may keep the embeddings of tokens and places.

        Heap et al. 2025, arXiv 2501.17727, whose two controls these are.
        """

    @property
    @abstractmethod
    def unembedding(self) -> Tensor:
        """What makes logits of the last residual stream, on the network's device [d_model, d_vocab]."""

    @abstractmethod
    def words(self, tokens: Sequence[int]) -> list[str]:
        """Each of some tokens as text."""

    @abstractmethod
    def has_hook(self, name: str) -> bool:
        """Whether there is a hook of this name, whatever it gives."""

    @abstractmethod
    def _values(self, tokens: Tensor, hooks: Sequence[str]) -> Mapping[str, Tensor]:
        """What some hooks give for sequences [n, t]; one that is not reached is left out."""

    @abstractmethod
    def _everything(self, tokens: Tensor) -> Mapping[str, Tensor]:
        """What every hook gives for sequences [n, t]."""

    @abstractmethod
    def _logits(self, inputs: Tensor, hooks: Sequence[Hook]) -> Tensor:
        """Logits of the predictions [n, m, d_vocab], from the tokens that are read, with hooks at work."""

    def _loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return F.cross_entropy(logits.transpose(1, 2), self.targets(tokens).to(logits.device), reduction="none")

    def check_hooks(self, names: Sequence[str]) -> None:
        """Refuse hooks that the network does not have.

        Raises:
            UserError: it names the ones that are nearest.
        """
        for name in names:
            if not self.has_hook(name):
                raise UserError(hooks.unknown(name, self.hooks, self.n_layers))

    def read(self, tokens: Tensor, hooks: Sequence[str], place: int, batch_size: int = 4096) -> dict[str, Tensor]:
        """Activations at one place of sequences [n, t], for each hook fp32 [n, width] on the CPU.

        No token behind `place` is read, since the network is causal.

        Raises:
            UserError: the network has no such hook, or does not give one vector per token there.
        """
        blocks: dict[str, list[Tensor]] = {name: [] for name in hooks}
        for batch in batches(tokens[:, : place + 1], batch_size):
            for name, values in self.activations(batch, hooks).items():
                blocks[name].append(values[:, place].float().cpu())
        return {name: torch.cat(parts) for name, parts in blocks.items()}


def batches(tokens: Tensor, size: int) -> Iterator[Tensor]:
    """Sequences [n, t] at most `size` at a time."""
    return (tokens[start : start + size] for start in range(0, len(tokens), size))


def vectors(name: str, value: Tensor, tokens: Tensor) -> Tensor:
    """What a hook gives for sequences [n, t] as one vector per token [n, t, width].

    Raises:
        UserError: it gives something else.
    """
    flat = _one_vector_per_token(name, value, tokens)
    if flat is None:
        raise UserError(f"hook {name!r} gives {list(value.shape)}, not one vector per position")
    return flat


def replacing(name: str, replace: Replace, tokens: Tensor) -> Replace:
    """`replace` for values as the hook gives them, heads apart or not."""

    def of_values(value: Tensor) -> Tensor:
        return replace(vectors(name, value, tokens)).view_as(value)

    return of_values


def _one_vector_per_token(name: str, value: Tensor, tokens: Tensor) -> Tensor | None:
    if value.shape[:2] != tokens.shape or not value.is_floating_point():
        return None
    if value.ndim == 4 and HEADS.search(name):
        return value.flatten(2)
    return value if value.ndim == 3 else None
