"""Makes the built-in texts: excerpts of books that the built-in language model was trained on, and of other domains.

    python -m tools.make_domains BOOKS DEBIAN_HANDBOOKS WIKITEXT_2 PYTHON_LIBRARY

`BOOKS` is that of `tools.make_classics`. `DEBIAN_HANDBOOKS` holds `handbook_fr-FR.txt` and `handbook_de-DE.txt`,
`WIKITEXT_2` a `valid.txt`, and `PYTHON_LIBRARY` the modules and the licence of CPython 3.11. The README of the assets
says whose they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from husai_core import assets
from tools.make_classics import read

SIZE = 64_000
"""Bytes of each text, at most."""
BOOKS = (
    "The Wealth of Nations", "A Christmas Carol", "Bleak House", "Oliver Twist", "The Pickwick Papers", "Emma",
    "Pride and Prejudice", "Through the Looking-Glass",
)  # fmt: skip
MODULES = ("heapq", "graphlib", "queue", "string", "sched")
WORDS = {
    "french": r"\b(le|la|les|des|est|une|dans|pour|qui|sur)\b",
    "german": r"\b(der|die|das|und|ist|nicht|mit|von|zu|ein)\b",
    "english": r"\b(the|of|and|is|to|with|for|that|in|on)\b",
}
LEAST = 200
"""Characters of a paragraph of the handbook: shorter ones are headings and lists."""


def main(library_of_books: Path, handbooks: Path, wikitext: Path, library: Path) -> None:
    """Write every text."""
    target = assets.TEXTS
    books = {path.stem: read(path).text for path in library_of_books.glob("*/*.md")}
    (target / "classics.md").write_text("\n".join(excerpt(books[title].split("\n")) for title in BOOKS))
    for language, code in (("french", "fr-FR"), ("german", "de-DE")):
        write(target / f"{language}.md", paragraphs((handbooks / f"handbook_{code}.txt").read_text(), language))
    write(target / "encyclopaedia.md", [line for line in (wikitext / "valid.txt").read_text().split("\n") if line])
    write(target / "python.md", [(library / f"{module}.py").read_text() for module in MODULES], "\n\n")
    (target / "LICENSE-python").write_text((library / "LICENSE.txt").read_text())


def paragraphs(text: str, language: str) -> list[str]:
    """The paragraphs of a handbook that are in its language; some were never translated."""
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if len(line) >= LEAST and _count(line, language) > 2 * _count(line, "english")]


def _count(line: str, language: str) -> int:
    return len(re.findall(WORDS[language], line.lower()))


def write(path: Path, pieces: list[str], between: str = "\n") -> None:
    """Write an excerpt."""
    path.write_text(excerpt(pieces, between))


def excerpt(pieces: list[str], between: str = "\n") -> str:
    """The first pieces that fit into `SIZE` bytes."""
    text = ""
    for piece in pieces:
        longer = text + (between if text else "") + piece.strip()
        if len(longer.encode()) > SIZE:
            break
        text = longer
    return text + "\n"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
