"""What is found in uploaded files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from husai_core.saes.sae import SAE


@dataclass(frozen=True)
class Transformer:
    """A TransformerLens network: its configuration and its parameters."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Activations [n, d] without tokens, labels or split; `facts` is what the file says about them."""

    rows: Tensor
    facts: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """One thing in the uploaded files. `value` is a directory for layouts that are ours already."""

    source: str
    format: str
    value: SAE | Transformer | Rows | Path
    what: str
