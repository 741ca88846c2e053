"""Activations of a language model on text, written while they are computed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from husai_core.activations.store import Writer
from husai_core.data.text import Sequences
from husai_core.kinds.base import Job
from husai_core.models.language import LanguageModel
from husai_core.seeding import generator

TOKENS_PER_PASS = 8192


def rows_of(sequences: Sequences, from_position: int, special_tokens: bool) -> Tensor:
    """Which tokens give a row: bool [n, context].

    Those of the text, or with `special_tokens` all but padding, at `from_position` of their sequence or behind it.
    """
    place = torch.arange(sequences.tokens.shape[1])
    kept = place < sequences.length[:, None] if special_tokens else sequences.is_text
    return kept & (place >= from_position)


def enough(kept: Tensor, max_rows: int, seed: int) -> Tensor:
    """Indices int64 [m], ascending, of sequences drawn at random until their rows `kept` [n, context] suffice."""
    order = torch.randperm(len(kept), generator=generator(seed, "sequences"))
    before = kept[order].sum(1).cumsum(0) - kept[order].sum(1)
    return order[before < max_rows].sort().values


def extract(
    model: LanguageModel,
    sequences: Sequences,
    kept: Tensor,
    split: Tensor,
    max_rows: int,
    writers: Mapping[str, Writer],
    job: Job,
) -> None:
    """Write at most `max_rows` rows for each hook of `writers`, in the order of the text; `split` uint8 [n]."""
    total, done = min(int(kept.sum()), max_rows), 0
    size = max(1, TOKENS_PER_PASS // sequences.tokens.shape[1])
    for start in range(0, len(sequences), size):
        tokens, at = sequences.tokens[start : start + size], kept[start : start + size].nonzero()[: total - done]
        if not len(at):
            continue
        found = model.activations(tokens, list(writers))
        sequence, place = at.T
        columns = {
            "tokens": tokens[sequence, place][:, None],
            "label": torch.full((len(at),), -1),
            "split": split[start + sequence],
            "sequence": (start + sequence).int(),
            "place": place.int(),
        }
        for name, writer in writers.items():
            where = at.to(found[name].device)
            writer.add(found[name][where[:, 0], where[:, 1]], **columns)
        done += len(at)
        job.progress(done, total, "rows")
