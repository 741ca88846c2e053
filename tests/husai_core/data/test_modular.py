import pytest
import torch

from husai_core.data.modular import POSITIONS, distinct, pairs, randomised, split
from husai_core.errors import UserError


def test_every_pair_appears_once_with_its_sum() -> None:
    data = pairs(7)
    a, b = data.tokens[:, 1], data.tokens[:, 3]
    assert {(int(x), int(y)) for x, y in zip(a, b, strict=True)} == {(x, y) for x in range(7) for y in range(7)}
    assert torch.equal(data.label, (a + b) % 7)
    assert data.tokens[9].tolist() == [7, 1, 10, 2, 9, 3, 8]  # BOS 1 + 2 = 3 EOS


def test_the_answer_is_read_before_it_is_shown() -> None:
    data = pairs(7)
    assert (data.tokens[:, POSITIONS["answer"]] == 7 + 2).all()
    assert torch.equal(data.tokens[:, POSITIONS["answer_token"]], data.label)


def test_split_sizes_and_seed() -> None:
    parts = split(1000, 0.1, 0.2, 3)
    assert parts.bincount().tolist() == [700, 100, 200]
    assert torch.equal(parts, split(1000, 0.1, 0.2, 3))
    assert not torch.equal(parts, split(1000, 0.1, 0.2, 4))


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.01, 0.2, "validation_fraction leaves only 1 of 100 rows"),
        (0.2, 0.0, "test_fraction leaves only 0 of 100"),
        (0.5, 0.49, "training is only 1 of 100"),
    ],
)
def test_a_part_of_fewer_than_two_rows_is_refused(validation: float, test: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split(100, validation, test, 0)


def test_distinct_rows_come_in_the_order_of_their_first_occurrence() -> None:
    assert distinct(torch.tensor([[3, 1], [2, 2], [3, 1], [0, 5], [2, 2]])).tolist() == [0, 1, 3]


def test_randomised_changes_only_the_named_columns() -> None:
    data = pairs(11)
    shown = randomised(data, (1, 3), 0)
    assert torch.equal(shown.label, data.label)
    changed = (shown.tokens != data.tokens).any(0)
    assert changed.nonzero()[:, 0].tolist() == [1, 3]
    assert int(shown.tokens[:, [1, 3]].max()) < 11
