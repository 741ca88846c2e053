"""Activations of a model on sequences, written while they are computed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from husai_core.activations.store import Writer
from husai_core.data.text import Sequences
from husai_core.job import Job
from husai_core.models.model import Model
from husai_core.seeding import generator

TOKENS_PER_PASS = 8192


def rows_of(sequences: Sequences, from_position: int, special_tokens: bool) -> Tensor:
    """Which tokens give a row: bool [n, context].

    Those of the text, or with `special_tokens` all but padding, at `from_position` of their sequence or behind it.
    """
    place = torch.arange(sequences.tokens.shape[1])
    kept = place < sequences.length[:, None] if special_tokens else sequences.is_text
    return kept & (place >= from_position)


def chosen(tokens: Tensor, rows: Tensor, max_rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sequences drawn at random from `tokens` [n, context] until they give `max_rows` of the `rows` bool [n, context].

    Of rows whose sequences are alike up to and including their token, the one that is drawn first stays.

    Returns:
        The sequences that give a row, int64 [m], ascending, and their rows, bool [m, context].
    """
    order = torch.randperm(len(tokens), generator=generator(seed, "sequences"))
    kept = first_seen(tokens[order], rows[order])
    kept &= kept.flatten().cumsum(0).view_as(kept) <= max_rows
    giving = kept.any(1)
    index, place = order[giving].sort()
    return index, kept[giving][place]


def first_seen(tokens: Tensor, rows: Tensor) -> Tensor:
    """Those of `rows`, bool [n, context], whose `tokens` [n, context] up to and including theirs are no earlier row's.

    A causal model gives the same vector wherever these are the same.
    """
    n, first = len(tokens), torch.zeros_like(rows)
    vocabulary, prefix = int(tokens.max()) + 1 if n else 1, torch.zeros(n, dtype=torch.int64)
    for place, column in enumerate(tokens.T):
        prefix = torch.unique(prefix * vocabulary + column, return_inverse=True)[1]
        sequences = rows[:, place].nonzero()[:, 0]
        earliest = torch.full((n,), n).scatter_reduce(0, prefix[sequences], sequences, "amin")
        first[earliest[earliest < n], place] = True
    return first


def extract(
    model: Model,
    sequences: Tensor,
    kept: Tensor,
    split: Tensor,
    writers: Mapping[str, Writer],
    job: Job,
) -> None:
    """Write the rows `kept` of sequences [n, context] for each hook of `writers`, in their order; `split` uint8 [n]."""
    total, done = int(kept.sum()), 0
    size = max(1, TOKENS_PER_PASS // sequences.shape[1])
    for start in range(0, len(sequences), size):
        tokens, at = sequences[start : start + size], kept[start : start + size].nonzero()
        activations = model.activations(tokens, list(writers))
        sequence, place = at.T
        columns = {
            "tokens": tokens[sequence, place][:, None],
            "label": torch.full((len(at),), -1),
            "split": split[start + sequence],
            "sequence": (start + sequence).int(),
            "place": place.int(),
        }
        for name, writer in writers.items():
            where = at.to(activations[name].device)
            writer.add(activations[name][where[:, 0], where[:, 1]], **columns)
        done += len(at)
        job.progress(done, total, "rows")
