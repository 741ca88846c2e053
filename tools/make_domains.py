"""Makes the built-in texts of other domains than the built-in language model was trained on.

    python -m tools.make_domains DEBIAN_HANDBOOKS WIKITEXT_2 PYTHON_LIBRARY

`DEBIAN_HANDBOOKS` holds `handbook_fr-FR.txt` and `handbook_de-DE.txt`, `WIKITEXT_2` a `valid.txt`, and
`PYTHON_LIBRARY` the modules and the licence of CPython 3.11. The README of the assets says whose they are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from husai_core import assets

SIZE = 64_000
"""Bytes of each text, at most."""
MODULES = ("heapq", "graphlib", "queue", "string", "sched")
WORDS = {
    "french": r"\b(le|la|les|des|est|une|dans|pour|qui|sur)\b",
    "german": r"\b(der|die|das|und|ist|nicht|mit|von|zu|ein)\b",
    "english": r"\b(the|of|and|is|to|with|for|that|in|on)\b",
}
LEAST = 200
"""Characters of a paragraph of the handbook: shorter ones are headings and lists."""


def main(handbooks: Path, wikitext: Path, library: Path) -> None:
    """Write every text."""
    target = assets.OTHER_DOMAINS
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
    """The first pieces that fit into `SIZE` bytes."""
    text = ""
    for piece in pieces:
        longer = text + (between if text else "") + piece.strip()
        if len(longer.encode()) > SIZE:
            break
        text = longer
    path.write_text(text + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
