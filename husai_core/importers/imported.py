"""What is read from uploaded files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from husai_core.activations.store import Activations
from husai_core.importers.claims import Claim
from husai_core.saes.sae import SAE


@dataclass(frozen=True)
class ModularWeights:
    """A TransformerLens network: `config` as `models.modular.build` takes it, and the parameters that fit it.

    `position` is where it reads the answer; `leaks_label` says that its input there showed the answer.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    position: str
    leaks_label: bool


@dataclass(frozen=True)
class LanguageFiles:
    """The files of a language model in the Hugging Face layout, by name, and the architecture that it names."""

    files: dict[str, Path]
    architecture: str


@dataclass(frozen=True)
class BareRows:
    """Activations [n, d] without tokens, labels or split, read behind block `layer` at `position`, where known."""

    rows: Tensor
    layer: int | None
    position: str | None


@dataclass(frozen=True)
class Imported:
    """One thing in the uploaded files.

    `claimed` is what they say of the making of a transformer or of rows, `training` what they say of an SAE's;
    `notes` are for whoever imports it, and `beside` are further files that said something of it. `half` is an SAE of
    the same training at half the tokens.
    """

    source: str
    format: str
    value: SAE | ModularWeights | LanguageFiles | BareRows | Activations
    what: str
    claimed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    training: Claim = field(default_factory=Claim)
    beside: tuple[Path, ...] = ()
    half: SAE | None = None


@dataclass(frozen=True)
class Contents:
    """What an upload holds, in the order of its folders, and the names of the files that were not read."""

    things: list[Imported]
    left_out: list[str]
