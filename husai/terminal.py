"""What the commands print: tables or one JSON document on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from husai.errors import HusaiError

WIDTH, FOLDED, WIDEST = 120, 24, 1 << 16
WHOLE = {"id", "job", "state", "verdict", "sha256"}
COLOURS = {
    "succeeded": "green", "pass": "green", "equal": "green", "failed": "red", "fail": "red", "different": "red",
    "timed_out": "red", "cancelled": "yellow", "blocked": "yellow", "inconclusive": "yellow", "running": "cyan",
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
        """Write a line about what is going on to stderr."""
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
        """Write a table; known states and verdicts are coloured on a terminal (nothing in JSON mode).

        Only columns with cells of more than `FOLDED` characters are folded, and only down to that width; a table that
        needs more than the terminal has runs over its edge.
        """
        from rich import box
        from rich.cells import cell_len
        from rich.measure import Measurement
        from rich.table import Table
        from rich.text import Text

        if self.json:
            return
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", header_style="bold", pad_edge=False)
        cells = [[printable("" if cell is None else str(cell)) for cell in row] for row in rows]
        for name, *column in zip(columns, *cells, strict=True):
            width = max(cell_len(cell) for cell in (name, *column))
            whole = width <= FOLDED or name in WHOLE
            table.add_column(name, overflow="fold", no_wrap=whole, min_width=width if whole else FOLDED)
        for row in cells:
            table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
        target = console(sys.stdout)
        target.width = max(target.width, Measurement.get(target, target.options.update_width(WIDEST), table).minimum)
        target.print(table)

    def error(self, error: HusaiError) -> None:
        """Say in one line what went wrong; in JSON mode also as a problem object on stdout."""
        if self.json:
            self.document(error.document())
        self.note(f"husai: {error}")


def console(stream: Any) -> Console:
    """A rich console without markup; plain lines of fixed width where the stream is no terminal."""
    from rich.console import Console

    width = None if stream.isatty() else WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def printable(text: str) -> str:
    """Text without control characters, so that a log or a name cannot steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def number(value: object, digits: int = 4) -> str:
    """A figure in few characters; `unknown` for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    return f"{value:.{digits}g}" if isinstance(value, float) else "unknown" if value is None else str(value)


def short(digest: str) -> str:
    """The first characters of a digest."""
    return digest[:12]


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
