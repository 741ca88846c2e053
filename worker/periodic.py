"""What is done again and again beside the jobs, each at its own pace."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from services.db import complain

log = logging.getLogger("husai.worker")
RETRY_SECONDS = 1.0
Chore = tuple[float, Callable[[], object]]
"""Seconds between two turns (infinite: once), and what to do."""


class Chores:
    """Does each chore when it is due; one that fails is tried again, and keeps none of the others from its turn."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = list(chores)
        self._due = [0.0] * len(self._chores)

    def turn(self) -> None:
        """Do what is due."""
        for index, (period, chore) in enumerate(self._chores):
            if time.monotonic() >= self._due[index]:
                try:
                    chore()
                    self._due[index] = time.monotonic() + period
                except Exception as error:
                    complain(log, "a chore failed; it is tried again", error)
                    self._due[index] = time.monotonic() + RETRY_SECONDS

    def until(self, over: threading.Event, pause: float = 0.5) -> None:
        """Take turns until `over`."""
        while not over.is_set():
            self.turn()
            over.wait(pause)
