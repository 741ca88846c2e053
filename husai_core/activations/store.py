"""The activations artifact: rows with their tokens, labels and splits in one safetensors file, facts in `cfg.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from husai_core.activations.rank import effective_rank
from husai_core.data.modular import SPLITS
from husai_core.identity import canonical

FACTS = ("hook_name", "position", "source", "model_digest", "p", "leaks_label")


@dataclass(frozen=True)
class Activations:
    """Activations of one hook at one position.

    `rows` fp32 [n, d]; `tokens` int64 [n, context], the context that was read (0 wide for synthetic rows); `label`
    int64 [n] (-1 for synthetic rows); `split` uint8 [n] (0 train, 1 validation, 2 test). `source` is `model`,
    `untrained` or `synthetic`; `model_digest` names the trained network; `leaks_label` says that the input at this
    position, or the training of the model, showed the answer.
    """

    rows: Tensor
    tokens: Tensor
    label: Tensor
    split: Tensor
    hook_name: str
    position: str
    source: str
    model_digest: str | None = None
    p: int | None = None
    leaks_label: bool = False

    def mask(self, part: str) -> Tensor:
        """Which rows belong to `train`, `validation` or `test`: bool [n]."""
        return self.split == SPLITS.index(part)

    def part(self, part: str) -> Tensor:
        """The rows of one split [m, d]."""
        return self.rows[self.mask(part)]

    @cached_property
    def mean(self) -> Tensor:
        """Mean per dimension over all rows [d]."""
        return self.rows.double().mean(0).float()

    @cached_property
    def variance(self) -> Tensor:
        """Variance per dimension over all rows [d], divided by n."""
        return self.rows.double().var(0, correction=0).float()

    @cached_property
    def effective_rank(self) -> float:
        """Effective rank of all rows."""
        return effective_rank(self.rows)

    @property
    def cfg(self) -> dict[str, Any]:
        """What `cfg.json` holds."""
        n, d = self.rows.shape
        facts = {name: getattr(self, name) for name in FACTS}
        return facts | {"n_rows": n, "d_model": d, "effective_rank": self.effective_rank}


def save(directory: Path, activations: Activations) -> None:
    """Write the artifact's two files into `directory`."""
    names = ("rows", "tokens", "label", "split", "mean", "variance")
    tensors = {name: getattr(activations, name).cpu().contiguous() for name in names}
    save_file(tensors, directory / "activations.safetensors")
    (directory / "cfg.json").write_bytes(canonical(activations.cfg))


def load(directory: Path) -> Activations:
    """Read an artifact that `save` wrote."""
    tensors = load_file(directory / "activations.safetensors")
    facts: dict[str, Any] = json.loads((directory / "cfg.json").read_bytes())
    facts = {name: facts[name] for name in FACTS}
    return Activations(tensors["rows"], tensors["tokens"], tensors["label"], tensors["split"], **facts)
