"""The held-out sequences on which SAEs are measured inside the network that they read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.activations.extract import rows_of
from husai_core.activations.store import Activations
from husai_core.activations.unseen import unseen
from husai_core.data.modular import POSITIONS, pairs
from husai_core.data.text import Sequences
from husai_core.errors import UserError
from husai_core.models.modular import ModularNetwork
from husai_core.seeding import generator

MOST_GROUPS = 32
LEAST_SEQUENCES = 3


@dataclass(frozen=True)
class Sample:
    """Held-out sequences, in groups of neighbours, which are left out one at a time for intervals.

    `tokens` int64 [n, t]; `rows` bool [n, t'] says at which of the tokens that the network reads (`Model.inputs`) an
    SAE is at work; `predicted` bool [n, m] which of its predictions count.
    """

    tokens: Tensor
    rows: Tensor
    predicted: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return min(MOST_GROUPS, len(self))

    @property
    def group(self) -> Tensor:
        """The group of each sequence, int64 [n]; all are equally large, give or take one sequence."""
        return torch.arange(len(self)) * self.groups // len(self)

    @property
    def unit(self) -> str:
        """What is left out at a time."""
        return "sequence" if len(self) <= MOST_GROUPS else "sequence group"


def of_text(
    sequences: Sequences,
    from_position: int,
    special_tokens: bool,
    most: int,
    seed: int,
    trained_on: Activations | None,
) -> Sample:
    """At most `most` sequences of a text, drawn at random from those that the SAEs were not trained on.

    SAEs are at work at the tokens that would give rows (see `extract.rows_of`); predictions of text count. Without
    `trained_on`, all sequences are taken to be held out.

    Raises:
        UserError: fewer than `LEAST_SEQUENCES` are held out.
    """
    rows = rows_of(sequences, from_position, special_tokens)
    usable = rows.any(1) & sequences.is_text[:, 1:].any(1)
    if trained_on is not None:
        usable &= unseen(sequences, trained_on)
    chosen = _drawn(usable, most, seed, f"{len(sequences)} sequences of the text")
    return Sample(sequences.tokens[chosen], rows[chosen], sequences.is_text[chosen, 1:])


def of_pairs(
    network: ModularNetwork, p: int, position: str, most: int, seed: int, trained_on: Activations | None
) -> Sample:
    """At most `most` pairs of modulus `p` whose context up to `position`, where the SAEs read, was not trained on.

    Raises:
        UserError: fewer than `LEAST_SEQUENCES` are held out, or the network says the sum before `position`.
    """
    tokens, place = pairs(p).tokens, POSITIONS[position]
    length = network.inputs(tokens).shape[1]
    if place >= length:
        raise UserError(f"the network says the sum before position {position}, so an SAE there changes nothing")
    usable = torch.ones(len(tokens), dtype=torch.bool)
    if trained_on is not None:
        held_out = set(map(tuple, trained_on.tokens[trained_on.mask("test")].tolist()))
        usable = torch.tensor([tuple(context) in held_out for context in tokens[:, : place + 1].tolist()])
    chosen = _drawn(usable, most, seed, f"{len(tokens)} pairs")
    rows = torch.zeros(len(chosen), length, dtype=torch.bool)
    rows[:, place] = True
    return Sample(tokens[chosen], rows, torch.ones(len(chosen), 1, dtype=torch.bool))


def _drawn(usable: Tensor, most: int, seed: int, what: str) -> Tensor:
    """At most `most` of the sequences that are `usable` [n], drawn at random, ascending."""
    at = usable.nonzero()[:, 0]
    if len(at) < LEAST_SEQUENCES:
        raise UserError(f"only {len(at)} of {what} were held out from training; give other text")
    drawn = torch.randperm(len(at), generator=generator(seed, "sequences"))[:most]
    return at[drawn].sort().values
