"""Finding the service: `HUSAI_URL` and `HUSAI_KEY`, or the server that runs on this machine's home folder."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from husai.errors import Unavailable, Usage

if TYPE_CHECKING:
    from husai.client import Husai


def home(folder: Path | None = None) -> Path:
    """The home folder: `folder`, else `HUSAI_HOME`, else `~/.husai`."""
    return (folder or Path(os.environ.get("HUSAI_HOME") or "~/.husai")).expanduser().absolute()


def connect(folder: Path | None = None, patience: float | None = None) -> Husai:
    """A client for the service in force; `folder` asks for the server of that home folder.

    Raises:
        Usage: an address without a key, or either of a form that cannot be sent.
        Unavailable: no server of this home runs.
    """
    from husai.client import Husai

    seconds = _patience() if patience is None else patience
    url = None if folder else os.environ.get("HUSAI_URL")
    if url:
        key = os.environ.get("HUSAI_KEY", "").strip()
        if not key:
            raise Usage("HUSAI_URL is set but HUSAI_KEY is not")
        return Husai(url, key, patience=seconds)
    place = home(folder)
    return Husai(running(place), _key(place), patience=seconds)


def running(place: Path) -> str:
    """The address of the server of a home folder.

    Raises:
        Unavailable: none has announced itself there, or it was killed since.
    """
    try:
        announced = json.loads((place / "server.json").read_text())
        url = str(announced["url"])
    except (OSError, ValueError, KeyError, TypeError):
        url = ""
    if not (url and _held(place / "up.lock")):
        raise Unavailable(f"no server runs on {place}; start one with `husai up`, or set HUSAI_URL")
    return url


def _held(lock: Path) -> bool:
    """True while a process holds the lock; the kernel frees it at the process's death."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _key(place: Path) -> str:
    try:
        return (place / "key").read_text().strip()
    except OSError as error:
        raise Unavailable(f"cannot read the key of the local server: {error.strerror}: {place / 'key'}") from None


def _patience() -> float:
    word = os.environ.get("HUSAI_PATIENCE", "60")
    try:
        return max(0.0, float(word))
    except ValueError:
        raise Usage(f"HUSAI_PATIENCE must be a number of seconds, not {word!r}") from None
