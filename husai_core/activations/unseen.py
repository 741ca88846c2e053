"""Which sequences of a text an SAE was not trained on, by the rows that it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from husai_core.activations.store import Activations
from husai_core.data.text import Sequences
from husai_core.errors import UserError

GRAM = 13
"""Consecutive tokens that two texts share only where one repeats the other (Brown et al. 2020, arXiv 2005.14165)."""
BASE = 1_000_003


def unseen(sequences: Sequences, activations: Activations) -> Tensor:
    """Sequences that share no `GRAM` consecutive tokens with training or validation rows: bool [n].

    They need not be cut at the same places; of short sequences half as many tokens as they have are enough, since a
    sequence can consist of the ends of two others.

    Raises:
        UserError: the rows do not say which sequence they come from.
    """
    if activations.sequence is None or activations.place is None:
        raise UserError("the activations do not say which sequences of a text they come from, so none is held out")
    length = min(GRAM, sequences.tokens.shape[1] // 2)
    seen = ~activations.mask("test")
    tokens = activations.tokens[seen, 0]
    sequence, place = activations.sequence[seen], activations.place[seen]
    last = length - 1
    joined = (sequence[last:] == sequence[: len(sequence) - last]) & (place[last:] - place[: len(place) - last] == last)
    trained_on = _hashes(tokens[None], length)[0][joined]
    inside = torch.arange(last, sequences.tokens.shape[1]) < sequences.length[:, None]
    return ~(torch.isin(_hashes(sequences.tokens, length), trained_on) & inside).any(1)


def _hashes(tokens: Tensor, length: int) -> Tensor:
    """A 64-bit number for each run of `length` tokens of sequences int64 [n, t]: [n, max(0, t - length + 1)]."""
    n, runs = len(tokens), max(0, tokens.shape[1] - length + 1)
    hashes = torch.zeros(n, runs, dtype=torch.int64)
    for offset in range(length):
        hashes = hashes * BASE + tokens[:, offset : offset + runs] + 1
    return hashes
