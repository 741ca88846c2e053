"""Text: documents from uploaded files, their split, and their tokens as sequences of equal length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import torch
from torch import Tensor

from husai_core.data.modular import check_parts
from husai_core.errors import UserError
from husai_core.seeding import generator

SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class TextFile:
    """One file of text: without a byte-order mark, and with single line feeds at the end of lines."""

    name: str
    text: str


@dataclass(frozen=True)
class Sequences:
    """Windows of documents, each read on its own.

    `tokens` int64 [n, context]: the beginning-of-sequence token, where the tokeniser has one, then text, then padding;
    `is_text` bool [n, context] is false for special tokens and padding; `length` int64 [n] counts the tokens before the
    padding; `document` int64 [n] is each window's source.
    """

    tokens: Tensor
    is_text: Tensor
    length: Tensor
    document: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, index: Tensor) -> Sequences:
        """Some of the sequences, by their indices int64 [m]."""
        return Sequences(self.tokens[index], self.is_text[index], self.length[index], self.document[index])


def read(directories: Sequence[Path]) -> list[TextFile]:
    """The documents below some directories, in the order of these and of the file names.

    Raises:
        UserError: there is none, or a file is not UTF-8 text named `.txt` or `.md`.
    """
    documents = [
        document(path, path.relative_to(directory).as_posix())
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    ]
    if not any(document.text.strip() for document in documents):
        raise UserError("the text input holds no text")
    return documents


def document(path: Path, name: str) -> TextFile:
    """One file, known as `name`.

    Raises:
        UserError: it is not UTF-8 text named `.txt` or `.md`.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{name} is not a text file (known: {', '.join(SUFFIXES)})")
    try:
        return TextFile(name, path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def passages(text: str, size: int, whole: str) -> list[str]:
    """The text in pieces of at most `size` characters, which end before white space or `whole` where they can."""
    end = rf"(?=\s|{re.escape(whole)}|\Z)"
    return re.findall(rf"(?s).{{1,{size}}}{end}|.{{1,{size}}}", text)


def divided(
    documents: Iterable[TextFile], size: int, whole: str, validation_fraction: float, test_fraction: float, seed: int
) -> tuple[list[str], Tensor]:
    """Stretches of the documents and the split of each: uint8 [m], see `husai_core.data.modular.SPLITS`.

    Passages of at most `size` characters are split at random, equal ones alike, each part with its share of the
    characters as nearly as whole passages come; neighbours that come to lie in one split are joined. A copy that is
    cut at other places is not seen to be one.

    Raises:
        UserError: a part would have fewer than two different passages.
    """
    pieces = [passages(document.text, size, whole) for document in documents]
    sizes = Counter[str]()
    for piece in chain.from_iterable(pieces):
        sizes[piece] += len(piece)
    splits = _splits(list(sizes.values()), validation_fraction, test_fraction, seed)
    split_of = dict(zip(sizes, splits, strict=True))
    stretches = [
        (split, "".join(piece for _, piece in run))
        for of_document in pieces
        for split, run in groupby([(split_of[piece], piece) for piece in of_document], itemgetter(0))
    ]
    return [stretch for _, stretch in stretches], torch.tensor([split for split, _ in stretches])


def _splits(sizes: Sequence[int], validation_fraction: float, test_fraction: float, seed: int) -> list[int]:
    """The split of each passage: test or validation while there is room for it, give or take half a usual passage."""
    total, half = sum(sizes), sum(sizes) / max(1, len(sizes)) / 2
    room = {2: test_fraction * total, 1: validation_fraction * total}
    splits = torch.zeros(len(sizes), dtype=torch.uint8)
    for at in torch.randperm(len(sizes), generator=generator(seed, "split")).tolist():
        split = next((split for split in room if sizes[at] <= room[split] + half), 0)
        splits[at] = split
        if split:
            room[split] -= sizes[at]
    check_parts(splits, "different passages")
    return [int(split) for split in splits]


def windows(
    documents: Iterable[Sequence[int]], context: int, bos: int | None, special: Collection[int] = ()
) -> Sequences:
    """Consecutive windows of `context` tokens, `bos` included; the last one of a document is padded at its end.

    `documents` are token ids without special tokens of the tokeniser; ids in `special` are not counted as text.
    """
    tokens, length, document = [torch.zeros(0, context, dtype=torch.int64)], list[Tensor](), list[Tensor]()
    head = 0 if bos is None else 1
    for number, ids in enumerate(documents):
        n, remainder = divmod(len(ids), context - head)
        n += remainder > 0
        text = torch.full((n * (context - head),), bos or 0)
        text[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        tokens.append(torch.cat([torch.full((n, head), bos or 0), text.view(n, context - head)], 1))
        length.append(torch.full((n,), context))
        document.append(torch.full((n,), number))
        if remainder:
            length[-1][-1] = head + remainder
    return _marked(torch.cat(tokens), torch.cat(length), torch.cat(document), head, special)


def _marked(tokens: Tensor, length: Tensor, document: Tensor, head: int, special: Collection[int]) -> Sequences:
    place = torch.arange(tokens.shape[1])
    inside = (place >= head) & (place < length[:, None])
    is_text = inside & ~torch.isin(tokens, torch.tensor(sorted(special), dtype=torch.int64))
    return Sequences(tokens, is_text, length, document)
