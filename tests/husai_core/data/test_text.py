from pathlib import Path

import pytest
import torch

from husai_core.data import text
from husai_core.errors import UserError


def test_windows_hold_every_token_once() -> None:
    output = text.windows([list(range(10, 27)), [], [30, 31]], context=6, bos=1, special=[1, 12])
    assert output.tokens.shape == (5, 6)
    assert output.document.tolist() == [0, 0, 0, 0, 2]
    assert output.tokens[output.is_text].tolist() == [10, 11, *range(13, 27), 30, 31]
    assert output.tokens[-1].tolist() == [1, 30, 31, 1, 1, 1]
    assert text.windows([[5, 6, 7]], context=2, bos=None).tokens.tolist() == [[5, 6], [7, 0]]
    assert text.windows([[]], context=4, bos=1).tokens.shape == (0, 4)
    whole = text.windows([[4, 5, 6]], context=4, bos=1)
    assert (whole.tokens.tolist(), whole.length.tolist()) == ([[1, 4, 5, 6]], [4])


def test_passages_are_the_text_and_end_between_words() -> None:
    words = "one two, threefour  five<e>six" + "x" * 40 + " seven\n"
    output = text.passages(words, 12, "<e>")
    assert "".join(output) == words
    assert output[:5] == ["one two,", " threefour ", " five", "<e>sixxxxxxx", "x" * 12]
    assert text.passages("", 12, "<e>") == []


def test_stretches_are_the_documents_and_each_lies_in_one_part() -> None:
    documents = [text.TextFile(name, " ".join(f"{name}{i}" for i in range(400))) for name in "ab"]
    stretches, parts = text.divided(documents, 40, "<e>", 0.1, 0.2, 0)
    assert "".join(stretches) == "".join(document.text for document in documents)
    sizes = [sum(len(stretch) for stretch, split in zip(stretches, parts, strict=True) if split == i) for i in range(3)]
    assert [size / sum(sizes) for size in sizes] == pytest.approx([0.7, 0.1, 0.2], abs=0.03)
    owner = [stretch.strip()[0] for stretch in stretches]
    assert all(a != b or x != y for a, b, x, y in zip(parts, parts[1:], owner, owner[1:], strict=False))
    assert text.divided(documents, 40, "<e>", 0.1, 0.2, 0)[0] == stretches
    twice, parts = text.divided([*documents, *documents], 40, "<e>", 0.1, 0.2, 0)
    by_part = [{s for s, p in zip(twice, parts, strict=True) if p == split} for split in range(3)]
    assert not (by_part[0] & by_part[1] | by_part[0] & by_part[2] | by_part[1] & by_part[2])
    repeated = text.TextFile("d", "all the same in every line now " * 1000 + " ".join(map(str, range(20_000))))
    stretches, parts = text.divided([repeated], 31, "<e>", 0.1, 0.2, 0)
    sizes = [sum(len(stretch) for stretch, split in zip(stretches, parts, strict=True) if split == i) for i in range(3)]
    assert [size / sum(sizes) for size in sizes] == pytest.approx([0.7, 0.1, 0.2], abs=0.001)
    with pytest.raises(UserError, match="of 2 different passages"):
        text.divided([text.TextFile("c", "one two")], 4, "<e>", 0.1, 0.2, 0)


def test_documents_come_in_order(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.md").write_text(f"{name} b")
        (tmp_path / name / "a.txt").write_text(f"{name} ä")
    output = text.read([tmp_path / "two", tmp_path / "one"])
    assert [document.text for document in output] == ["two ä", "two b", "one ä", "one b"]


def test_marks_and_line_ends_of_other_systems_are_no_text(tmp_path: Path) -> None:
    for name, content in {"a.txt": "Hello\nworld\n\n", "b.txt": "\ufeffHello\r\nworld\r\n\r\n"}.items():
        (tmp_path / name).write_bytes(content.encode())
    plain, marked = text.read([tmp_path])
    assert plain.text == marked.text == "Hello\nworld\n\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"%PDF", "a.pdf is not a text file"),
        ("a.txt", b"caf\xe9", "a.txt is not UTF-8 text: .* at byte 3"),
        ("a.txt", b" \n", "holds no text"),
    ],
)
def test_files_without_text_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        text.read([tmp_path])


def test_selected_sequences_stay_together() -> None:
    output = text.windows([[5, 6, 7, 8]], context=2, bos=None).select(torch.tensor([1]))
    assert output.tokens.tolist() == [[7, 8]]
    assert len(output) == 1
