"""Following a job and its children: bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from husai.errors import TimedOut
from husai.models import Job
from husai.terminal import Terminal, console, number, printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from husai.client import Husai

TELLING = ("validation_accuracy", "explained_variance", "normalised_mse", "validation_loss", "loss")
STEP_SECONDS, STEP_SHARE = 10.0, 0.1


@dataclass(frozen=True)
class Row:
    """One job of the tree as it stands, with its most telling live figure."""

    depth: int
    job: Job
    figure: str

    @property
    def name(self) -> str:
        """The child's name inside its study, else the kind."""
        return "  " * self.depth + (self.job.name or self.job.kind)

    @property
    def share(self) -> float | None:
        """Fraction of the work done, if known."""
        if self.job.final:
            return 1.0
        progress = self.job.progress or {}
        return min(1.0, progress["done"] / progress["total"]) if progress.get("total") else None


class View(AbstractContextManager["View"], Protocol):
    """Something that shows rows."""

    def update(self, rows: list[Row]) -> None:
        """Show the rows as they are now."""


def follow(
    husai: Husai,
    job_id: str,
    terminal: Terminal,
    *,
    timeout: float | None = None,
    tend: Callable[[], None] | None = None,
) -> Job:
    """Show a job's progress until it is final or blocked, and return it.

    Args:
        tend: called about every second, for the caller's own duties.

    Raises:
        TimedOut: that took more than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout if timeout is not None else None
    figures = Figures(husai)
    job = husai.job(job_id)
    with Bars() if sys.stderr.isatty() else Lines(terminal) as view:
        while True:
            view.update([Row(depth, one, figures.of(one)) for depth, one in tree(husai, job)])
            if job.final or job.state == "blocked":
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"job {job_id} is still {job.state} after {timeout:g} s")
            if tend:
                tend()
            began = time.monotonic()
            job = husai.poll(job, 1.0)
            time.sleep(max(0.0, 0.3 - (time.monotonic() - began)))


def tree(husai: Husai, job: Job, depth: int = 0) -> Iterator[tuple[int, Job]]:
    """A job and, below it, its children in the order of their making; reused jobs have none of their own."""
    yield depth, job
    if job.kind.split(".")[0] in {"study", "release"} and not job.reused_from:
        for child in husai.children(job):
            yield from tree(husai, child, depth + 1)


class Figures:
    """The latest live metric of each running job, read from its events."""

    def __init__(self, husai: Husai) -> None:
        self._husai = husai
        self._seen: dict[str, int] = {}
        self._latest: dict[str, str] = {}

    def of(self, job: Job) -> str:
        """`name value` of the most telling metric so far; empty before the first."""
        if job.state == "running":
            for event in self._husai.recent(job.id, self._seen.get(job.id, 0)):
                self._seen[job.id] = event.id
                if event.type == "metrics" and event.data.get("values"):
                    values = event.data["values"]
                    name = next((name for name in TELLING if name in values), next(iter(values)))
                    self._latest[job.id] = f"{name} {number(values[name])}"
        return self._latest.get(job.id, "")


class Lines:
    """Plain lines: every change of state, and now and then, progress. Why the job itself ended, the caller says."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._states: dict[str, str] = {}
        self._said: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def update(self, rows: list[Row]) -> None:
        """Write what is new."""
        for row in rows:
            if self._states.get(row.job.id) != row.job.state:
                self._states[row.job.id] = row.job.state
                self._said[row.job.id] = (time.monotonic(), 0.0)
                told = row.job.why if row.depth else row.job.state
                self._terminal.note(f"{row.name}: {told}" + (" (stored result)" if row.job.reused_from else ""))
            elif row.job.state == "running":
                self._progress(row)

    def _progress(self, row: Row) -> None:
        at, share = self._said[row.job.id]
        silent = time.monotonic() - at
        if row.share is None or row.share == share:
            return
        if silent >= 60 or (silent >= STEP_SECONDS and row.share - share >= STEP_SHARE):
            self._said[row.job.id] = (time.monotonic(), row.share)
            self._terminal.note(f"{row.name}: {row.share:.0%}" + (f", {row.figure}" if row.figure else ""))


class Bars:
    """One live bar per job."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[share]:>4}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=console(sys.stderr),
        )

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, tb)

    def update(self, rows: list[Row]) -> None:
        """Move the bars."""
        for row in rows:
            task = self._tasks.get(row.job.id)
            if task is None:
                task = self._tasks[row.job.id] = self._progress.add_task(
                    printable(row.name), total=None, note="", share=""
                )
            share = row.share if row.share is not None else (0.0 if row.job.state != "running" else None)
            note = "  ".join(part for part in (row.job.state, row.figure) if part)
            self._progress.update(
                task,
                total=None if share is None else 1.0,
                completed=share or 0.0,
                share="" if share is None else f"{share:.0%}",
                note=printable(note),
            )
