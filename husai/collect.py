"""Files to send, by the names that they get in the service."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath

from husai.errors import Usage

MOST_FILES, MOST_DEPTH = 1000, 8
"""What the service takes as one artifact."""
MOST_CHARACTERS, MOST_BYTES = 128, 255
"""Longest name of a file or folder there."""
LITTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"}
"""Names, in lower case, of what systems leave in folders; so do names that begin with a dot."""


def collect(places: list[Path]) -> tuple[dict[str, Path], list[str]]:
    """Files by the names they shall have, and what was left out; a folder stands for all below it.

    Letters of every script stay as they are. Where other characters are replaced, and where several folders have one
    name, no two names become one.

    Raises:
        Usage: a file is not there, or there are too many, or none.
    """
    paths: dict[str, Path] = {}
    left_out: list[str] = []
    folders: set[str] = set()
    for place in places:
        if not (place.is_file() or place.is_dir()):
            raise Usage(f"there is no file {place}")
        whole = Path(os.path.abspath(place))
        above = ""
        if whole.is_dir() and len(places) > 1:
            above = _free(_sendable(whole.name), folders)
            folders.add(above)
        for path in sorted(_below(whole, left_out) if whole.is_dir() else [whole]):
            steps = path.relative_to(whole if whole.is_dir() else whole.parent).parts
            name = _free("/".join([*filter(None, [above]), *map(_sendable, steps)]), paths)
            if name.count("/") >= MOST_DEPTH or len(paths) == MOST_FILES:
                raise Usage(f"{place}: at most {MOST_FILES} files can be sent together, {MOST_DEPTH - 1} folders deep")
            paths[name] = path
    if not paths:
        raise Usage(f"there are no files in {', '.join(map(str, places))}")
    return paths, left_out


def _below(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """The files in a folder and its folders, but for links and what systems leave there, which `left_out` gets.

    Raises:
        Usage: it is a home folder of the service, which holds its keys.
    """
    if (folder / "signing.key").exists():
        raise Usage(f"{folder} is a home folder of HUSAI, which holds its keys")
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in LITTER:
            left_out.append(path.name)
        elif path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            yield from _below(path, left_out)


def _sendable(name: str) -> str:
    """A name of a file or folder in characters that the service takes; it begins with a letter or a digit."""
    name = "".join(c if _is_plain(c) else "_" for c in unicodedata.normalize("NFC", name))
    if unicodedata.category(name[0])[0] not in "LN":
        name = f"file{name}"
    while len(name) > MOST_CHARACTERS or len(name.encode()) > MOST_BYTES:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[:-1]}{dot}{suffix}" if stem else name[:-1]
    return name


def _is_plain(character: str) -> bool:
    """Whether the service takes a character in a name: letters and digits of every script, and `.`, `_` and `-`."""
    category = unicodedata.category(character)
    return category[0] in "LM" or category in ("Nd", "Nl") or character in "._-"


def _free(name: str, taken: Container[str]) -> str:
    """The name, with a number before its suffix if it is taken."""
    path, number, free = PurePosixPath(name), 2, name
    while free in taken:
        free = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        number += 1
    return free
