"""Rows that lie in shards, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class StoredRows:
    """Rows [n, d] of one or more shards [m, d], which may be memory maps and of any floating type.

    `rows[slice]` and `rows[indices]` (int64 [m], in any order) read those rows alone, as fp32 [m, d] on the CPU;
    `rows[:]` reads them all. `index` int64 [n] names the rows of the shards together that are meant, all by default.
    """

    def __init__(self, shards: Sequence[Tensor], index: Tensor | None = None) -> None:
        self.shards = list(shards)
        self.starts = torch.tensor([0, *(len(shard) for shard in self.shards)]).cumsum(0)
        self.index = torch.arange(int(self.starts[-1])) if index is None else index

    def __len__(self) -> int:
        return len(self.index)

    @property
    def shape(self) -> tuple[int, int]:
        """Number and width of the rows."""
        return len(self.index), self.shards[0].shape[1]

    def __getitem__(self, key: slice | Tensor) -> Tensor:
        ordered, order = self.index[key if isinstance(key, slice) else key.cpu()].sort()
        rows = torch.empty(len(order), self.shape[1])
        ends = torch.searchsorted(ordered, self.starts).tolist()
        for shard, start, low, high in zip(self.shards, self.starts, ends, ends[1:], strict=False):
            if low < high:
                rows.index_copy_(0, order[low:high], shard.index_select(0, ordered[low:high] - start).float())
        return rows

    def select(self, index: Tensor) -> StoredRows:
        """Some of these rows, by their indices int64 [m]; none is read yet."""
        return StoredRows(self.shards, self.index[index])

    def blocks(self, size: int = 8192) -> Iterator[Tensor]:
        """All rows in order, at most `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))
