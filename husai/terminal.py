"""What the commands print: tables or one JSON document on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from husai_core.render import text_layout as layout
from husai_core.render.text_layout import printable

if TYPE_CHECKING:
    from rich.console import Console

    from husai.errors import HusaiError

WIDTH = 120
"""Columns where nothing says how wide the output is."""
GREEN, RED, YELLOW, CYAN = "32", "31", "33", "36"
COLOURS = {
    "succeeded": GREEN, "pass": GREEN, "equal": GREEN, "good": GREEN, "failed": RED, "fail": RED, "different": RED,
    "bad": RED, "timed_out": RED, "cancelled": YELLOW, "blocked": YELLOW, "inconclusive": YELLOW, "running": CYAN,
    "met": GREEN, "not met": RED, "undecided": YELLOW,
}  # fmt: skip


class Terminal:
    """Where one command writes. With `json`, stdout carries exactly one document."""

    def __init__(self, json: bool = False) -> None:
        self.json = json

    def document(self, value: Any) -> None:
        """Write the command's JSON document."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")  # lone surrogates stay JSON

    def line(self, text: str = "") -> None:
        """Write a line of the answer (nothing in JSON mode)."""
        if not self.json:
            sys.stdout.write(printable(text) + "\n")

    def note(self, text: str) -> None:
        """Write a line about what is going on to stderr; on a terminal, broken between words where it is too long."""
        clean = printable(text)
        if sys.stderr.isatty() and layout.cells(clean) > columns(sys.stderr):
            clean = "\n".join(layout.wrap(clean, columns(sys.stderr)))
        sys.stderr.write(clean + "\n")
        sys.stderr.flush()

    @property
    def width(self) -> int:
        """Columns to write in: `COLUMNS`, else the terminal's own, else 120."""
        return columns(sys.stdout)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], droppable: Collection[str] = ()) -> None:
        """Write a table that splits no word; known states and verdicts are coloured (nothing in JSON mode).

        Args:
            droppable: columns that a narrow terminal goes without, the least needed last.
        """
        if self.json:
            return
        texts = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
        for line in layout.table(columns, texts, self.width, droppable=droppable, paint=self.paint()):
            sys.stdout.write(line + "\n")

    def lines(self, lines: Iterable[str]) -> None:
        """Write lines that are already laid out and hold no control characters but `paint`'s."""
        if not self.json:
            sys.stdout.writelines(line + "\n" for line in lines)

    def paragraph(self, text: str, indent: int = 0) -> None:
        """Write text in lines that fit, broken between words (nothing in JSON mode)."""
        if not self.json:
            self.lines(layout.indented(layout.wrap(printable(text), self.width - indent), indent))

    def pairs(self, items: Iterable[tuple[str, object]], indent: int = 0) -> None:
        """Write names and values below each other (nothing in JSON mode)."""
        texts = [(name, printable("" if value is None else str(value))) for name, value in items]
        self.lines(layout.indented(layout.pairs(texts, self.width - indent, self.paint()), indent))

    def paint(self) -> layout.Paint:
        """How known states and verdicts are coloured; not at all where nobody would see it."""
        return painted if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else layout.unpainted

    def error(self, error: HusaiError) -> None:
        """Say in one line what went wrong; in JSON mode also as a problem object on stdout."""
        if self.json:
            self.document(error.document())
        self.note(f"husai: {error}")


def columns(stream: Any) -> int:
    """Columns of a stream: `COLUMNS`, else those of the terminal behind it, else `WIDTH`."""
    wish = os.environ.get("COLUMNS", "")
    if wish.isdecimal() and int(wish) > 0:
        return int(wish)
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError, AttributeError):
        return WIDTH


def console(stream: Any) -> Console:
    """A rich console without markup."""
    from rich.console import Console

    return Console(file=stream, width=columns(stream), markup=False, highlight=False, emoji=False)


def painted(piece: str, cell: str) -> str:
    """A piece of a cell in the colour of its state or verdict."""
    colour = COLOURS.get(cell)
    return f"\x1b[{colour}m{piece}\x1b[0m" if colour else piece


def number(value: object, digits: int = 4) -> str:
    """A figure in few characters; `unknown` for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        text = str(value) if isinstance(value, int) else f"{value:.{digits}g}"
        return text.replace("-", "−")
    return "unknown" if value is None else str(value)


def short(digest: str) -> str:
    """The first characters of a digest; commands take them for the whole."""
    return digest[:12]


def short_ids(jobs: Iterable[str]) -> dict[str, str]:
    """The first characters of several ids, as many as tell them apart."""
    ids = sorted(set(jobs))
    digits = next((n for n in range(8, 64) if len({job[:n] for job in ids}) == len(ids)), 64)
    return {job: job[:digits] for job in ids}


def size(count: int | None) -> str:
    """Bytes in a readable unit."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
