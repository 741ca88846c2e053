"""What is found in uploaded files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from husai_core.activations.store import Activations
from husai_core.saes.sae import SAE


@dataclass(frozen=True)
class Transformer:
    """A TransformerLens network: `config` as `models.modular.build` takes it, and the parameters that fit it.

    `position` is where it reads the answer; `leaks_label` says that its input there showed the answer.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    position: str
    leaks_label: bool


@dataclass(frozen=True)
class Rows:
    """Activations [n, d] without tokens, labels or split, read behind block `layer` at `position`, where known."""

    rows: Tensor
    layer: int | None
    position: str | None


@dataclass(frozen=True)
class Found:
    """One thing in the uploaded files; `claimed` is what they say of the making of a transformer or of rows."""

    source: str
    format: str
    value: SAE | Transformer | Rows | Activations
    what: str
    claimed: dict[str, Any] = field(default_factory=dict)
