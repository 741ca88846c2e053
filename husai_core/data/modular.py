"""Addition modulo p: every pair (a, b) as the sequence `[BOS, a, +, b, =, c, EOS]`.

The model must say c where it reads `=` (index 4). At index 5 its input is c itself, so a model that is read there can
copy its input; that position is called `answer_token` and is allowed only where the leak is declared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.errors import UserError
from husai_core.seeding import generator

POSITIONS = {"bos": 0, "first_operand": 1, "second_operand": 3, "answer": 4, "answer_token": 5}
SPLITS = ("train", "validation", "test")
LENGTH = 7


@dataclass(frozen=True)
class Pairs:
    """Sequences with their sums: `tokens` [n, 7] int64, `label` [n] int64 (the sum c), `p` the modulus."""

    tokens: Tensor
    label: Tensor
    p: int


def vocabulary(p: int) -> int:
    """Number of tokens: the digits 0 to p-1, then BOS, EOS, `=` and `+`."""
    return p + 4


def pairs(p: int) -> Pairs:
    """All p² pairs, a-major."""
    a, b = torch.arange(p).repeat_interleave(p), torch.arange(p).repeat(p)
    c = (a + b) % p
    bos, eos, equals, plus = (torch.full_like(a, p + i) for i in range(4))
    return Pairs(torch.stack([bos, a, plus, b, equals, c, eos], dim=1), c, p)


def split(n: int, validation_fraction: float, test_fraction: float, seed: int, what: str = "rows") -> Tensor:
    """Assign `n` rows (or `what` they are) at random: uint8 [n], 0 train, 1 validation, 2 test (see `SPLITS`).

    Raises:
        UserError: a part would have fewer than two rows.
    """
    validation, test = round(n * validation_fraction), round(n * test_fraction)
    order = torch.randperm(n, generator=generator(seed, "split"))
    parts = torch.zeros(n, dtype=torch.uint8)
    parts[order[:test]] = 2
    parts[order[test : test + validation]] = 1
    check_parts(parts, what)
    return parts


def check_parts(parts: Tensor, what: str) -> None:
    """Refuse a split in which a part has fewer than two of its rows, or `what` they are.

    Raises:
        UserError: it has.
    """
    causes = ("what validation and test leave for training is", "validation_fraction leaves", "test_fraction leaves")
    for cause, size in zip(causes, parts.bincount(minlength=3).tolist(), strict=True):
        if size < 2:
            raise UserError(f"{cause} only {size} of {len(parts)} {what}")


def distinct(tokens: Tensor) -> Tensor:
    """Indices [m] of the rows of `tokens` [n, context] that differ from all rows before them, in order."""
    first = {tuple(row): i for i, row in reversed(list(enumerate(tokens.tolist())))}
    return torch.tensor(sorted(first.values()))


def randomised(data: Pairs, columns: tuple[int, ...], seed: int) -> Pairs:
    """The same sequences and labels, with the digits at `columns` drawn anew."""
    tokens, source = data.tokens.clone(), generator(seed, "randomised", *columns)
    tokens[:, list(columns)] = torch.randint(data.p, (len(tokens), len(columns)), generator=source)
    return Pairs(tokens, data.label, data.p)
