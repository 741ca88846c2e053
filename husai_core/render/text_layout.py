"""Plain text at any width: a word is split only where it is wider than the line, and a table that cannot fit becomes
one block for each row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import zip_longest

GAP, LEAST = 2, 16
"""Columns between two columns of a table, and the least that a sentence gets."""
Paint = Callable[[str, str], str]
"""From a piece of text and the whole cell that it belongs to, to what is written."""


def unpainted(piece: str, cell: str) -> str:
    """Text without colours."""
    return piece


def cells(text: str) -> int:
    """Columns of a terminal that a text takes; an East Asian character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, width: int, right: bool = False) -> str:
    """Text filled up with spaces to `width` columns."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words; a word that is wider is broken where the line ends."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in (piece for whole in paragraph.split() for piece in _pieces(whole, width)):
            if line and cells(line) + 1 + cells(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def _pieces(word: str, width: int) -> list[str]:
    """A word in pieces of at most `width` columns, but at least a character each."""
    if cells(word) <= width:
        return [word]
    pieces = [""]
    for character in word:
        if pieces[-1] and cells(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def printable(text: str) -> str:
    """Text on one line, without control characters: it can neither steer the terminal nor forge a line of our own."""
    return printable_lines(text.replace("\n", " ").replace("\t", " "))


def printable_lines(text: str) -> str:
    """Text whose line breaks and tabs are wanted, without other control characters."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def indented(lines: Sequence[str], by: int = 2) -> list[str]:
    """Lines moved to the right; empty ones stay empty."""
    return [" " * by + line if line else "" for line in lines]


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    droppable: Collection[str] = (),
    paint: Paint = unpainted,
) -> list[str]:
    """A table in lines of at most `width` columns.

    What does not fit is wrapped at words; then `droppable` columns are left out, the first as long as possible; then
    each row becomes a block of its own.
    """
    filled = [position for position, name in enumerate(columns) if any(row[position] for row in rows) or not rows]
    order = list(droppable)
    optional = sorted((p for p in filled if columns[p] in order), key=lambda p: order.index(columns[p]))
    shown = [position for position in filled if position not in optional]
    for position in optional:
        wider = sorted([*shown, position])
        if _widths(*_columns(columns, rows, wider), width) is not None:
            shown = wider
    names, kept = _columns(columns, rows, shown)
    widths = _widths(names, kept, width)
    return blocks(columns, rows, width, paint) if widths is None else _grid(names, kept, widths, paint)


def _columns(
    columns: Sequence[str], rows: Sequence[Sequence[str]], positions: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Some columns of a table: their names, and each row's cells under them."""
    return [columns[p] for p in positions], [[row[p] for p in positions] for row in rows]


def blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, paint: Paint = unpainted) -> list[str]:
    """One block of named lines for each row; empty cells are left out."""
    lines: list[str] = []
    for row in rows:
        filled = [(name, cell) for name, cell in zip(columns, row, strict=True) if cell]
        lines += ["", *pairs(filled, width, paint)]
    return lines[1:]


def pairs(items: Sequence[tuple[str, str]], width: int, paint: Paint = unpainted) -> list[str]:
    """Names and values below each other; a value that does not fit beside its name stands below it."""
    widest = max((cells(name) for name, _ in items), default=0)
    label = min(widest, max([width // 2, *(_longest(name) for name, _ in items)]))
    lines: list[str] = []
    for name, value in items:
        room = width - label - GAP
        if room >= max(_longest(value), min(24, cells(value))):
            for left, right in zip_longest(wrap(name, label), wrap(value, room), fillvalue=""):
                lines.append((pad(left, label + GAP) + (paint(right, value) if right else "")).rstrip())
        else:
            by = GAP if _longest(value) <= width - GAP else 0
            lines += [name, *indented([paint(piece, value) for piece in wrap(value, width - by)], by)]
    return lines


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """A width for each column that splits no word, or None where the table cannot fit."""
    texts = [[name, *(row[position] for row in rows)] for position, name in enumerate(columns)]
    wanted = [max(map(cells, column), default=0) for column in texts]
    # A sentence squeezed into a column of single words is harder to read than a block; a heading is not.
    least = [
        max([_longest(heading), *(max(_longest(cell), min(cells(cell), LEAST)) for cell in column)])
        for heading, *column in texts
    ]
    room = width - GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    widths = list(least)
    spare = room - sum(widths)
    while spare > 0 and (short := [p for p in range(len(widths)) if widths[p] < wanted[p]]):
        for position in short:
            step = min(wanted[position] - widths[position], max(1, spare // len(short)), spare)
            widths[position] += step
            spare -= step
    return widths


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], paint: Paint) -> list[str]:
    right = [bool(rows) and all(_numeric(row[position]) for row in rows) for position in range(len(columns))]
    rule = "  ".join("─" * width for width in widths)
    lines = [*_row(columns, widths, right, unpainted), rule]
    tall = any(cells(cell) > width for row in rows for cell, width in zip(row, widths, strict=True))
    for position, row in enumerate(rows):
        if tall and position and len(columns) > 1:
            lines.append("")
        lines += _row(row, widths, right, paint)
    return lines


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[bool], paint: Paint) -> list[str]:
    columns = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for height in range(max(map(len, columns), default=0)):
        pieces = [column[height] if height < len(column) else "" for column in columns]
        padded = [pad(piece, width, flush) for piece, width, flush in zip(pieces, widths, right, strict=True)]
        painted = [paint(piece, cell) for piece, cell in zip(padded, row, strict=True)]
        lines.append((" " * GAP).join(painted).rstrip())
    return lines


def _longest(text: str) -> int:
    return max(map(cells, text.split()), default=0)


def _numeric(text: str) -> bool:
    """Whether a cell is a figure, and not a digest that happens to have digits only."""
    figure = text.replace(",", "").replace("%", "").strip(" +-−.eE0123456789") == ""
    return text in {"unknown", "–"} or (figure and not (text.isdigit() and len(text) >= 8))
