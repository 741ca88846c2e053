"""What is done again and again beside the jobs, each at its own pace."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from services.db import complain

log = logging.getLogger("husai.worker")
RETRY_SECONDS = 1.0
Task = tuple[float, Callable[[], object]]
"""Seconds between two turns (infinite: once), and what to do."""


class Periodic:
    """Runs each task when it is due; one that fails is tried again, and keeps none of the others from its turn."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = list(tasks)
        self._due = [0.0] * len(self._tasks)

    def turn(self) -> None:
        """Run what is due."""
        for index, (period, run) in enumerate(self._tasks):
            if time.monotonic() >= self._due[index]:
                try:
                    run()
                    self._due[index] = time.monotonic() + period
                except Exception as error:
                    complain(log, "a periodic task failed; it is tried again", error)
                    self._due[index] = time.monotonic() + RETRY_SECONDS

    def until(self, over: threading.Event, pause: float = 0.5) -> None:
        """Take turns until `over`."""
        while not over.is_set():
            self.turn()
            over.wait(pause)
