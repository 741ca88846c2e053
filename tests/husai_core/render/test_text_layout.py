"""Tables and texts at any width: no line is longer than the width, no word is split, nothing is lost."""

import pytest

from husai_core.render.text_layout import blocks, cells, pairs, table, wrap

COLUMNS = ["job", "kind", "state", "reason"]
ROWS = [
    ["066159cc", "train.activations", "succeeded", "every figure is good and nothing is left to be said about it"],
    ["066159cd", "stress.trained_vs_random", "failed", ""],
]


@pytest.mark.parametrize("width", [24, 30, 40, 60, 80, 120, 200])
def test_a_table_keeps_to_its_width_and_to_whole_words(width: int) -> None:
    lines = table(COLUMNS, ROWS, width)
    assert all(cells(line) <= max(width, len("stress.trained_vs_random") + 2) for line in lines)
    words = " ".join(lines).split()
    for row in ROWS:
        for word in " ".join(row).split():
            assert word in words, (word, lines)


def test_columns_that_can_be_done_without_go_first_then_rows_become_blocks() -> None:
    assert table(COLUMNS, ROWS, 120)[0].split() == COLUMNS
    narrow = table(["job", "kind", "state"], [row[:3] for row in ROWS], 40, droppable=["kind"])
    assert narrow[0].split() == ["job", "state"]
    assert table(COLUMNS, ROWS, 30) == blocks(COLUMNS, ROWS, 30)


def test_wide_characters_count_twice_and_a_word_that_is_too_long_is_broken() -> None:
    assert cells("三国") == 4
    assert wrap("三国 三国 三国", 9) == ["三国 三国", "三国"]
    assert wrap(f"a {'b' * 12} c", 5) == ["a", "b" * 5, "b" * 5, "bb c"]
    assert wrap("三国三国", 3) == ["三", "国", "三", "国"]
    assert wrap("a\nb", 5) == ["a", "b"]


def test_values_stand_beside_their_names_or_below_them() -> None:
    assert pairs([("a", "1"), ("long name", "2")], 40) == ["a          1", "long name  2"]
    assert pairs([("digest", "f" * 30)], 32) == ["digest", "  " + "f" * 30]
    assert pairs([("digest", "f" * 30)], 30) == ["digest", "f" * 30]
    assert pairs([("digest", "f" * 30)], 20) == ["digest", "f" * 20, "f" * 10]


def test_columns_of_figures_stand_flush_right_and_empty_columns_are_left_out() -> None:
    lines = table(["name", "none", "value"], [["a", "", "1.5"], ["b", "", "10.25"]], 40)
    assert lines == ["name  value", "────  ─────", "a       1.5", "b     10.25"]


def test_a_droppable_column_is_shown_where_it_fits_though_a_better_one_does_not() -> None:
    rows = [["a1b2c3d4", "x" * 60, "2026-11-28"]]
    lines = table(["job", "spec", "created"], rows, 40, droppable=["spec", "created"])
    assert lines[0].split() == ["job", "created"]
