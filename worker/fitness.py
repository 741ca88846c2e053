"""Whether this host can run jobs. While it cannot, its worker claims none, so that a broken disk fails no job."""

import logging
import threading
from collections.abc import Callable

from services.artifacts import Store
from services.storage import describe

log = logging.getLogger("husai.worker")
RETRY_SECONDS = 3.0
"""Between two tries of a store that failed."""


class Fitness:
    """What keeps this host from running jobs, and when it is over.

    Args:
        store: the artifact store, which is tried.
        drain: set when the worker stops.
        longest: seconds that a host which fails again and again is left alone at most.
        tell: called whenever the problem has changed.
    """

    def __init__(self, store: Store, drain: threading.Event, longest: float, tell: Callable[[], None]) -> None:
        self.store, self.drain, self.longest = store, drain, longest
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
        """Try the store."""
        try:
            self.store.probe()
        except Exception as error:
            self._change(f"artifact store {describe(error)}")
        else:
            self._change(None)

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
