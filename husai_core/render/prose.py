"""Paragraphs and lists of plain text, such as the help of a kind, free of the line breaks of their source."""

from __future__ import annotations

from collections.abc import Iterator

BULLET = "- "


def blocks(text: str) -> Iterator[str | list[str]]:
    """Each paragraph as one line, and each list as its items; lines that begin with `- ` are items."""
    for block in filter(None, text.strip().split("\n\n")):
        items: list[str] = []
        for line in block.splitlines():
            if line.startswith(BULLET):
                items.append(line.removeprefix(BULLET).strip())
            elif items:
                items[-1] += " " + line.strip()
            else:
                items = []
                break
        yield items or " ".join(block.split())
