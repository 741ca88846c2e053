from __future__ import annotations

from pathlib import Path

import pytest
import torch

from husai_core.activations.rows import StoredRows
from husai_core.activations.store import Activations
from husai_core.benchmarks.text_labels import CLASSES, labelled, token_classes
from husai_core.errors import UserError
from husai_core.models import language
from tests.husai_core.models import tiny_language

WORD, LOWER, CAPITAL, NUMBER, PUNCTUATION, WHITE = range(len(CLASSES))


def test_tokens_are_told_apart_by_what_they_write(tmp_path: Path) -> None:
    model = language.load(tiny_language.write(tmp_path))
    classes = token_classes(model)
    ids = model.tokenizer.convert_tokens_to_ids

    def known(token: str) -> int:
        return int(classes[ids(token)])

    assert [known(token) for token in ("Ġthe", "x", "A", "7", ";", "Ċ", "Ġ")] == [
        LOWER, WORD, WORD, NUMBER, PUNCTUATION, WHITE, WHITE,
    ]  # fmt: skip
    assert int(classes[model.tokenizer.eos_token_id]) == -1


def rows_of(sequence: list[int], place: list[int]) -> Activations:
    n = len(place)
    return Activations(
        rows=StoredRows([torch.arange(n)[:, None].float()]),
        tokens=torch.arange(n)[:, None],
        label=torch.full((n,), -1),
        split=torch.zeros(n, dtype=torch.uint8),
        hook_name="h",
        position="text",
        source="language",
        sequence=torch.tensor(sequence, dtype=torch.int32),
        place=torch.tensor(place, dtype=torch.int32),
    )


def test_the_label_is_the_next_token_of_the_same_sequence() -> None:
    """The third row ends its sequence, the fourth lacks its neighbour, and the token behind the fifth is special."""
    rows = rows_of([0, 0, 0, 1, 1, 1], [1, 2, 3, 1, 3, 4])
    drawn = labelled(rows, torch.tensor([LOWER, NUMBER, WORD, WORD, WORD, -1]), "train", 10, 0)
    assert drawn.rows[:, 0].tolist() == [0, 1]
    assert drawn.label.tolist() == [NUMBER, WORD]
    assert len(labelled(rows, torch.full((6,), WORD), "train", 2, 0).label) == 2


def test_rows_without_a_place_in_a_text_have_no_next_token() -> None:
    rows = rows_of([0, 1, 2], [1, 1, 1])
    with pytest.raises(UserError, match="no train row of the activations has a next token"):
        labelled(rows, torch.full((3,), WORD), "train", 10, 0)
