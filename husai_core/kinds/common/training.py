"""What a long training reads, and what it tells its job: how far it is, its curves, and a state to resume from.

Light: no torch.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from husai_core.job import Job

if TYPE_CHECKING:
    from husai_core.activations.rows import StoredRows
    from husai_core.saes.bank import Rows
    from husai_core.saes.trainer import Save

CHECKPOINT_SECONDS = 60.0
PROGRESS_SECONDS = 0.5
IN_MEMORY = 2 * 2**30
"""Bytes of rows, as float32, up to which they are held in memory."""


def near(rows: StoredRows) -> Rows:
    """The rows in memory if that is cheap; else they are read batch by batch."""
    n, d = rows.shape
    return rows[:] if 4 * n * d <= IN_MEMORY else rows


class Reporter:
    """Passes progress and curves on, not more often than anybody can read."""

    def __init__(self, job: Job) -> None:
        self.job, self.last = job, 0.0

    def step(self, done: int, total: int, figures: dict[str, float]) -> None:
        """Pass on that `done` of `total` rows were read, and the figures of a point of the curves, if there are any."""
        if figures:
            self.job.metrics(done, figures)
        if figures or time.monotonic() - self.last > PROGRESS_SECONDS:
            self.job.progress(done, total, "rows")
            self.last = time.monotonic()


class StateKeeper:
    """Keeps a resumable state every minute, and once when the worker is about to stop."""

    def __init__(self, job: Job) -> None:
        self.job, self.last, self.drained = job, time.monotonic(), False

    def offer(self, save: Save) -> None:
        """Let `save` write a checkpoint if it is time for one."""
        draining = self.job.draining and not self.drained
        if draining or time.monotonic() - self.last > CHECKPOINT_SECONDS:
            path = self.job.checkpoint()
            save(path)
            self.job.commit_checkpoint(path)
            self.last, self.drained = time.monotonic(), self.drained or draining
