"""Following a job and its children: bars on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from husai.errors import TimedOut
from husai.models import Job
from husai.terminal import Terminal, console, number
from husai_core.render.text_layout import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from husai.client import Husai

MOVING = ("queued", "running")
STEP_SECONDS, STEP_SHARE = 10.0, 0.1
LEAST_SECONDS = 2.0
"""Seconds of progress before a speed is worth saying."""


@dataclass(frozen=True)
class Row:
    """One job of the tree as it stands, with its latest live figure and, once they are known, speed and time left."""

    depth: int
    job: Job
    figure: str = ""
    pace: str = ""

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
    """Show a job's progress until it is final, or blocked with all that it waits for, and return it.

    Args:
        tend: called about every second, for the caller's own duties.

    Raises:
        TimedOut: that took more than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout if timeout is not None else None
    figures, speeds = Figures(husai), Speeds()
    job = husai.job(job_id)
    with leaving(terminal, job_id, goes_on=tend is None), Bars() if sys.stderr.isatty() else Lines(terminal) as view:
        while True:
            nodes = list(tree(husai, job))
            view.update([Row(depth, node, figures.of(node), speeds.of(node)) for depth, node in nodes])
            if job.final or stuck([node for _, node in nodes]):
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise TimedOut(f"job {job_id} is still {job.state} after {timeout:g} s")
            if tend:
                tend()
            began = time.monotonic()
            job = husai.poll(job, 1.0)
            time.sleep(max(0.0, 0.3 - (time.monotonic() - began)))


@contextmanager
def leaving(terminal: Terminal, job_id: str, again: str | None = None, goes_on: bool = True) -> Iterator[None]:
    """Say at Ctrl-C what becomes of the job.

    Args:
        again: the command that waits for it again.
        goes_on: whether the service outlives this command.
    """
    try:
        yield
    except KeyboardInterrupt:
        again = again or f"husai watch {job_id}"
        if goes_on:
            terminal.note(f"The job goes on. See it again with `{again}`; stop it with `husai cancel {job_id}`.")
        else:
            terminal.note(f"The job pauses with the service. `husai up` resumes it; `{again}` shows it then.")
        raise


def tree(husai: Husai, job: Job, depth: int = 0) -> Iterator[tuple[int, Job]]:
    """A job and, below it, its children in the order of their making; reused jobs have none of their own."""
    yield depth, job
    if job.kind.split(".")[0] in {"study", "release"} and not job.reused_from:
        for child in husai.children(job):
            yield from tree(husai, child, depth + 1)


def stuck(nodes: Sequence[Job]) -> bool:
    """True where a job or one below it is blocked, and nothing else of them can move on before that ends."""
    return any(node.is_blocked for node in nodes) and not any(node.state in MOVING for node in nodes)


class Figures:
    """The latest live figure of each running job, the first that the job reports, read from its events."""

    def __init__(self, husai: Husai) -> None:
        self._husai = husai
        self._seen: dict[str, int] = {}
        self._latest: dict[str, str] = {}

    def of(self, job: Job) -> str:
        """`name value`; empty before the first."""
        if job.state == "running":
            for event in self._husai.recent(job.id, self._seen.get(job.id, 0)):
                self._seen[job.id] = event.id
                if event.type == "metrics" and event.data.get("values"):
                    name, value = next(iter(event.data["values"].items()))
                    self._latest[job.id] = f"{name.replace('_', ' ')} {number(value)}"
        return self._latest.get(job.id, "")


class Speeds:
    """Speed and time left of each running job: what the service says, else what was seen of its progress."""

    def __init__(self) -> None:
        self._began: dict[str, tuple[float, float]] = {}

    def of(self, job: Job) -> str:
        """`1,200 rows/s, 3 min 10 s left`; empty before it is known."""
        progress = job.progress
        if job.state != "running" or not progress:
            self._began.pop(job.id, None)
            return ""
        rate, left = progress.get("rate"), progress.get("seconds_left")
        now, (at, before) = time.monotonic(), self._began.setdefault(job.id, (time.monotonic(), progress["done"]))
        if rate is None and now - at >= LEAST_SECONDS and progress["done"] > before:
            rate = (progress["done"] - before) / (now - at)
        if left is None and rate:
            left = max(0.0, progress["total"] - progress["done"]) / rate
        return pace(rate, str(progress.get("unit", "")), left)


def pace(rate: float | None, unit: str, seconds_left: float | None) -> str:
    """Speed and time left in words, as far as they are known."""
    from husai_core.render.numbers import duration

    speed = f"{_rounded(rate)} {unit}/s" if rate else ""
    return ", ".join(filter(None, [speed, f"{duration(round(seconds_left))} left" if seconds_left is not None else ""]))


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


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
                text = row.job.why if row.depth else row.job.state
                self._terminal.note(f"{row.name}: {text}" + (" (stored result)" if row.job.reused_from else ""))
            elif row.job.state == "running":
                self._progress(row)

    def _progress(self, row: Row) -> None:
        at, share = self._said[row.job.id]
        silent = time.monotonic() - at
        if row.share is None or row.share == share:
            return
        if silent >= 60 or (silent >= STEP_SECONDS and row.share - share >= STEP_SHARE):
            self._said[row.job.id] = (time.monotonic(), row.share)
            self._terminal.note(f"{row.name}: " + ", ".join(filter(None, [f"{row.share:.0%}", row.pace, row.figure])))


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
            stored = "stored result" if row.job.reused_from else ""
            note = "  ".join(filter(None, (row.job.state, stored, row.pace, row.figure)))
            self._progress.update(
                task,
                total=None if share is None else 1.0,
                completed=share or 0.0,
                share="" if share is None else f"{share:.0%}",
                note=printable(note),
            )
