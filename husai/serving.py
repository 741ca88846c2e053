"""A server for the time of one command, where none runs on the home folder yet."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from husai.local_server import Server, present

if TYPE_CHECKING:
    from husai.terminal import Terminal


@contextmanager
def local_server(place: Path, terminal: Terminal) -> Iterator[Server | None]:
    """The server of a home folder: the one that runs (None: it is not ours), or one for this command's time."""
    url = present(place)
    if url:
        terminal.note(f"using the server at {url}")
        yield None
        return
    terminal.note(f"starting a server on {place}")
    with Server(place, port=0) as server:
        yield server


def tending(server: Server | None, terminal: Terminal) -> Callable[[], None] | None:
    """What keeps our own server alive while a command waits; nothing where another process does."""
    if server is None:
        return None

    def tend() -> None:
        for remark in server.tend():
            terminal.note(remark)

    return tend


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that what it started is stopped."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    yield
