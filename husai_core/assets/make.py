"""Makes the built-in language model and the held-out text from a folder of books in Markdown.

    python -m husai_core.assets.make BOOKS

`BOOKS` holds a folder per author, in it a file per book: title, author and year, a line of dashes, the text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from husai_core import assets

HELD_OUT = ("Alice's Adventures in Wonderland", "Lady Susan")


def body(book: Path) -> str:
    """The text of a book without its heading."""
    heading, line, text = book.read_text().partition("\n-------\n")
    if not line or not heading.startswith("# Title: "):
        raise SystemExit(f"{book} has no heading that ends in a line of dashes")
    return text.strip() + "\n"


def file_name(title: str) -> str:
    """A title as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("'", "")).strip("-") + ".md"


def held_out(books: Path) -> None:
    """Write the books that no model may see."""
    assets.HELD_OUT.mkdir(exist_ok=True)
    for title in HELD_OUT:
        (path,) = books.glob(f"*/{title}.md")
        (assets.HELD_OUT / file_name(title)).write_text(body(path))


if __name__ == "__main__":
    held_out(Path(sys.argv[1]))
