from husai_core.render.prose import blocks


def test_lists_stay_lists_and_paragraphs_lose_their_line_breaks():
    text = "First line\nof two.\n\n- `a`: one thing\n  that goes on;\n- `b`: another.\n\nAnd a - dash\n- is no list."
    assert list(blocks(text)) == [
        "First line of two.",
        ["`a`: one thing that goes on;", "`b`: another."],
        "And a - dash - is no list.",
    ]
    assert list(blocks("")) == []
