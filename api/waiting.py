"""Waiting clients: one poller looks at the event log and wakes those whose job or decision changed.

A waiter holds no database session while it waits. The poller reads the newest events each time, some of them again,
because on Postgres a lower id may be committed after a higher one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool

from services.db import Database, complain
from services.tables import Decision, Event

log = logging.getLogger("husai.api")

DECISIONS = "decisions"
OVERLAP = 1024
SHARE = 4
T = TypeVar("T")


class Watch:
    """What one client waits for: ids of jobs and executions, or `DECISIONS`."""

    def __init__(self, keys: set[str]) -> None:
        self.keys, self.woken = keys, asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """True when something watched has changed, False after some seconds without."""
        try:
            await asyncio.wait_for(self.woken.wait(), seconds)
        except TimeoutError:
            return False
        self.woken.clear()
        return True


class Hub:
    """The poller. Start `run` as a task; `close` sends every waiter home."""

    def __init__(self, database: Database, interval: float = 0.2, capacity: int = 1000) -> None:
        self.database, self.interval, self.capacity = database, interval, capacity
        self.closing = False
        self._watches: set[Watch] = set()
        self._waiters: Counter[str] = Counter()
        self._busy = asyncio.Event()
        self._recent: set[int] = set()
        self._decisions: int | None = None

    def full(self, owner: str) -> str:
        """Why no more clients of an owner may wait, in one line; empty while they may.

        One owner may take a quarter of the room, so that nobody can take it all.
        """
        if self._waiters.total() >= self.capacity:
            return "Too many clients wait"
        return "Too many of your clients wait" if self._waiters[owner] >= self.capacity // SHARE else ""

    @contextmanager
    def waiter(self, owner: str) -> Iterator[None]:
        """Count a client that waits."""
        self._waiters[owner] += 1
        try:
            yield
        finally:
            self._waiters[owner] -= 1
            if not self._waiters[owner]:
                del self._waiters[owner]

    @contextmanager
    def watch(self, *keys: str) -> Iterator[Watch]:
        """Watch from now on; read the present state after this, never before."""
        watch = Watch(set(keys))
        self._watches.add(watch)
        self._busy.set()
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    async def until(
        self,
        load: Callable[[], T],
        ready: Callable[[T], bool],
        keys: Callable[[T], set[str]],
        seconds: float,
        owner: str,
    ) -> T:
        """Load again after each change until `ready`, the time is over or the server stops; at once without room."""
        value = await run_in_threadpool(load)
        if seconds <= 0 or self.full(owner):
            return value
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        with self.waiter(owner), self.watch() as watch:
            while not (ready(value) or self.closing or clock() >= deadline):
                current = keys(value)
                if current <= watch.keys:
                    await watch.wait(deadline - clock())
                watch.keys |= current
                value = await run_in_threadpool(load)
        return value

    def close(self) -> None:
        """Send every waiter home; safe in a signal handler."""
        self.closing = True

    def complain(self, error: Exception) -> None:
        """Log that the database could not be read."""
        complain(log, "the events could not be read; trying again", error)

    async def run(self) -> None:
        """Poll while anybody waits."""
        while True:
            if not self._watches:
                self._recent.clear()
                self._busy.clear()
                await self._busy.wait()
            try:
                changed = await run_in_threadpool(self._changes)
            except Exception as error:
                self.complain(error)
                changed = set()
            for watch in self._watches:
                if self.closing or watch.keys & changed:
                    watch.woken.set()
            await asyncio.sleep(self.interval)

    def _changes(self) -> set[str]:
        with self.database.read() as session:
            last = select(func.coalesce(func.max(Event.id), 0)).scalar_subquery()
            floor = max(self._recent, default=None)
            above = (last if floor is None else floor) - OVERLAP
            rows = session.execute(select(Event.id, Event.job_id, Event.execution_id).where(Event.id > above)).all()
            decisions = session.scalar(select(func.max(Decision.seq))) or 0
        changed = {key for id, *keys in rows if id not in self._recent for key in keys if key}
        if decisions != self._decisions:
            changed.add(DECISIONS)
        newest = max((row.id for row in rows), default=0)
        self._recent = {row.id for row in rows if row.id > newest - OVERLAP}
        self._decisions = decisions
        return changed
