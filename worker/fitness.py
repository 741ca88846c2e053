"""Whether this host can run jobs. While it cannot, its worker claims none, so that a broken disk fails no job."""

import logging
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from services.artifacts import PROBE, Store
from services.storage import describe

log = logging.getLogger("husai.worker")
RETRY_SECONDS = 3.0
"""Between two tries of a store that failed."""


def host_problem(store: Store, work: Path) -> str | None:
    """What is wrong with the artifact store or the work folder of this host; a little is written to both."""
    try:
        store.probe()
    except Exception as error:
        return f"artifact store {describe(error)}"
    try:
        _try_folder(work)
    except OSError as error:
        return f"work folder {describe(error)}"
    return None


def _try_folder(folder: Path) -> None:
    """Write a little and delete it.

    Raises:
        OSError: the folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"probe-{uuid.uuid4().hex}"
    try:
        with path.open("wb") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):
            path.unlink()


class Fitness:
    """What keeps this host from running jobs, and when it is over.

    Args:
        store: the artifact store, which is tried.
        work: the folder that attempts work in, perhaps on another disk, which is tried as well.
        drain: set when the worker stops.
        longest: seconds that a host which fails again and again is left alone at most.
        tell: called whenever the problem has changed.
    """

    def __init__(
        self, store: Store, work: Path, drain: threading.Event, longest: float, tell: Callable[[], None]
    ) -> None:
        self.store, self.work, self.drain, self.longest = store, work, drain, longest
        self.problem: str | None = None
        self.retry = RETRY_SECONDS
        self._tell, self._lock, self._pause = tell, threading.Lock(), 0.0

    def succeeded(self) -> None:
        """An attempt went as it should."""
        self._pause = 0.0

    def failed(self, problem: str) -> None:
        """An attempt failed because of this host."""
        with self._lock:
            self._pause = min(2 * self._pause or 1.0, self.longest)
        self._change(problem)

    def wait(self) -> bool:
        """Return when the host is fit; False when the worker drains."""
        pause = self._pause
        while self.problem is not None and not self.drain.wait(pause):
            self.probe()
            pause = self.retry
        return not self.drain.is_set()

    def probe(self) -> None:
        """Try the store and the work folder."""
        self._change(host_problem(self.store, self.work))

    def _change(self, problem: str | None) -> None:
        with self._lock:
            before, self.problem = self.problem, problem
        if problem == before:
            return
        if problem is None:
            log.info("this host can run jobs again")
        else:
            log.error("no more jobs are claimed: %s", problem)
        self._tell()
