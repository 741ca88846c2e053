"""The activations artifact: rows with their tokens, labels and splits in safetensors shards, facts in `cfg.json`.

A shard holds `rows` [m, d] and, for each row, `tokens` int64 [m, context], `label` int64 [m], `split` uint8 [m], and,
where rows share sequences, `sequence` and `place` int32 [m]. The last one also holds `mean` and `variance` [d] of all
rows. One shard is named `activations.safetensors`, several `activations-00000.safetensors` and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from husai_core.activations.moments import Moments
from husai_core.activations.rows import StoredRows
from husai_core.data.modular import SPLITS
from husai_core.errors import UserError
from husai_core.identity import canonical

SHARD_BYTES = 256 * 2**20
LANGUAGE = ("model", "context", "prepend_bos", "tokenizer_digest")
FACTS = ("hook_name", "position", "source", "model_digest", "p", "leaks_label", *LANGUAGE)
COLUMNS = ("tokens", "label", "split", "sequence", "place")


@dataclass(frozen=True)
class Activations:
    """Activations of one hook.

    `rows` [n, d]; `tokens` int64 [n, context], the context that was read (0 wide for synthetic rows, the token itself
    for rows of a language model); `label` int64 [n] (-1 where there is none); `split` uint8 [n] (0 train, 1 validation,
    2 test). `sequence` and `place` int32 [n] say which sequence of the text a row comes from and where in it; they are
    None where every row has a sequence of its own. `source` is `model`, `untrained`, `synthetic`, `language` or
    `imported`; `model_digest` names the trained network (a language model by its
    weights alone, one for addition by its artifact); `leaks_label` says that the input at this position, or the
    training of the model, showed the answer; `model`, `context`, `prepend_bos` and
    `tokenizer_digest` are a language model's name, its tokens per sequence, whether each begins with the
    beginning-of-sequence token, and the files that made tokens of the text.
    """

    rows: StoredRows
    tokens: Tensor
    label: Tensor
    split: Tensor
    hook_name: str
    position: str
    source: str
    model_digest: str | None = None
    p: int | None = None
    leaks_label: bool = False
    model: str | None = None
    context: int | None = None
    prepend_bos: bool | None = None
    tokenizer_digest: str | None = None
    sequence: Tensor | None = None
    place: Tensor | None = None

    def mask(self, split: str) -> Tensor:
        """Which rows belong to `train`, `validation` or `test`: bool [n]."""
        return self.split == SPLITS.index(split)

    def part(self, split: str) -> StoredRows:
        """The rows of one split [m, d], not yet read."""
        return self.rows.select(self.mask(split).nonzero()[:, 0])

    @cached_property
    def moments(self) -> Moments:
        """Moments of all rows, read block by block."""
        moments = Moments()
        for block in self.rows.blocks():
            moments.add(block)
        return moments


class Writer:
    """Writes an artifact into `directory` while its rows arrive in blocks; `close` ends it.

    `facts` are those of `FACTS`; rows are kept as `dtype`, in shards of at most `shard_bytes`.
    """

    def __init__(
        self, directory: Path, facts: Mapping[str, Any], dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.directory, self.facts, self.dtype, self.shard_bytes = directory, dict(facts), dtype, shard_bytes
        self.moments, self.by_split = Moments(), torch.zeros(len(SPLITS), dtype=torch.int64)
        self.pending, self.waiting, self.shards = list[dict[str, Tensor]](), 0, 0

    def add(self, rows: Tensor, **columns: Tensor) -> None:
        """Append rows [m, d] with their columns (see `COLUMNS`), all [m, ...].

        Raises:
            UserError: a row is not finite as `dtype`.
        """
        kept = rows.to(self.dtype)
        if not kept.isfinite().all():
            name = str(self.dtype).removeprefix("torch.")
            raise UserError(f"activations at {self.facts['hook_name']} are not finite as {name}; try another dtype")
        self.moments.add(kept)
        self.by_split += columns["split"].cpu().bincount(minlength=len(SPLITS))
        self.pending.append({name: value.cpu() for name, value in {"rows": kept, **columns}.items()})
        self.waiting += len(rows)
        size = max(1, self.shard_bytes // (kept.shape[1] * kept.element_size()))
        while self.waiting > size:
            self._write(size, f"activations-{self.shards:05d}.safetensors", {})

    def close(self) -> dict[str, Any]:
        """Write the last shard and `cfg.json`; returns what the latter holds.

        Raises:
            UserError: there is no row.
        """
        if not self.moments.n:
            raise UserError("there are no activations to store")
        name = f"activations-{self.shards:05d}.safetensors" if self.shards else "activations.safetensors"
        mean, variance = (value.float().cpu() for value in (self.moments.mean, self.moments.variance))
        self._write(self.waiting, name, {"mean": mean, "variance": variance})
        cfg = self.facts | {
            "n_rows": self.moments.n,
            "d_model": len(mean),
            "dtype": str(self.dtype).removeprefix("torch."),
            "effective_rank": self.moments.effective_rank,
            "mean_norm": self.moments.mean_norm,
            "rows_by_split": dict(zip(SPLITS, self.by_split.tolist(), strict=True)),
        }
        (self.directory / "cfg.json").write_bytes(canonical(cfg))
        return cfg

    def _write(self, size: int, name: str, more: Mapping[str, Tensor]) -> None:
        """Move the first `size` pending rows to a shard."""
        merged = {column: torch.cat([block[column] for block in self.pending]) for column in self.pending[0]}
        save_file({column: value[:size] for column, value in merged.items()} | dict(more), self.directory / name)
        self.pending = [{column: value[size:].clone() for column, value in merged.items()}]
        self.waiting, self.shards = self.waiting - size, self.shards + 1


def save(
    directory: Path,
    activations: Activations,
    dtype: torch.dtype = torch.float32,
    claimed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write an artifact into `directory`; returns its `cfg.json`, with what is only `claimed` of the rows, if given."""
    facts = {name: getattr(activations, name) for name in FACTS}
    writer = Writer(directory, facts if claimed is None else facts | {"claimed": dict(claimed)}, dtype)
    columns = {name: value for name in COLUMNS if (value := getattr(activations, name)) is not None}
    start = 0
    for block in activations.rows.blocks():
        writer.add(block, **{name: value[start : start + len(block)] for name, value in columns.items()})
        start += len(block)
    return writer.close()


def load(directory: Path) -> Activations:
    """An artifact that `save` or `Writer` wrote; its rows stay in the files until they are asked for."""
    facts = json.loads((directory / "cfg.json").read_bytes())
    return read(sorted(directory.glob("activations*.safetensors")), facts)


def read(paths: Sequence[Path], facts: Mapping[str, Any]) -> Activations:
    """The rows of these shards, in their order, with what `cfg.json` says of them."""
    shards, columns = list[Tensor](), {name: list[Tensor]() for name in COLUMNS}
    for path in paths:
        with safe_open(path, "pt") as file:
            shards.append(file.get_tensor("rows"))
            for name in columns.keys() & set(file.keys()):
                columns[name].append(file.get_tensor(name).clone())
    whole: dict[str, Any] = {name: torch.cat(parts) for name, parts in columns.items() if parts}
    known: dict[str, Any] = {name: facts.get(name) if name in LANGUAGE else facts[name] for name in FACTS}
    return Activations(rows=StoredRows(shards), **whole, **known)
