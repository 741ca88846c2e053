"""Folders that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

HOME = {"artifacts", "husai.db", "key", "secret", "signing.key", "server.json", "up.lock", "worker.id", "worker.lock"}
"""Names by which a home folder of HUSAI is known."""
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(path: Path) -> None:
    """Make a folder that nobody else can open; one that is empty or a home folder of HUSAI is closed to others.

    Raises:
        PermissionError: others could open it, and it is not ours to close, or it is meant for everybody, as /tmp is,
            or it holds something else.
        OSError: it cannot be made.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = path.stat()
    if not status.st_mode & OTHERS:
        return
    if status.st_mode & stat.S_ISVTX:
        raise PermissionError(f"{path} is a folder for everybody; name one of your own, such as {path / 'husai'}")
    if status.st_uid == os.geteuid():
        held = {entry.name for entry in path.iterdir()} - {"lost+found"}
        if path == path.parent or (held and not held & HOME):
            raise PermissionError(f"{path} holds other things, so it is not closed to others; name an empty folder")
        path.chmod(status.st_mode & ~OTHERS & 0o7777)
    elif status.st_mode & stat.S_IRWXO:
        raise PermissionError(f"{path} belongs to another user and others can open it; its owner has to run chmod 700")
