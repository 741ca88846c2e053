"""Event streams: the events of a job are read once and written as text once, however many clients follow it."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.waiting import Hub
from services import events
from services.tables import Event, Job

BATCH = 500
PING_SECONDS = 15
CHECK_SECONDS = 30.0
KEPT_CHARACTERS = 1 << 20
"""Text of the newest events of one job that is kept for its streams."""


@dataclass(frozen=True)
class Sent:
    """One event as a stream sends it."""

    id: int
    type: str
    text: str


def written(event: Event) -> Sent:
    """An event as text."""
    return Sent(event.id, event.type, f"id: {event.id}\nevent: {event.type}\ndata: {json.dumps(event.data)}\n\n")


class Feed:
    """The newest events of one job, kept up to date for as long as anybody streams them.

    Args:
        begin: all events above this id, up to the newest that was read, are kept.
        ended: no event follows.
    """

    def __init__(self, hub: Hub, job_id: str) -> None:
        self.hub, self.job_id = hub, job_id
        self.begin, self.newest, self.size, self.ended = 0, 0, 0, False
        self.readers = 0
        self.news = asyncio.Event()
        self._kept: deque[Sent] = deque()

    def after(self, cursor: int) -> list[Sent] | None:
        """The kept events above an id; None where some of these are no longer kept."""
        if cursor < self.begin:
            return None
        events: list[Sent] = []
        for event in reversed(self._kept):
            if event.id <= cursor:
                break
            events.append(event)
        return events[::-1]

    async def run(self) -> None:
        """Read what is new whenever the hub says that there is something."""
        with self.hub.watch(self.job_id) as watch:
            while not (self.ended or self.hub.closing):
                try:
                    fresh, self.ended, keys = await run_in_threadpool(read, self.hub, self.job_id, self.newest)
                except Exception as error:
                    self.hub.complain(error)
                    await asyncio.sleep(1)
                    continue
                self._keep(fresh)
                if keys <= watch.keys and len(fresh) < BATCH and not self.ended:
                    await watch.wait(PING_SECONDS)
                watch.keys |= keys
        self._tell()

    def _keep(self, fresh: list[Sent]) -> None:
        for event in fresh:
            self._kept.append(event)
            self.newest, self.size = event.id, self.size + len(event.text)
        while self.size > KEPT_CHARACTERS:
            oldest = self._kept.popleft()
            self.begin, self.size = oldest.id, self.size - len(oldest.text)
        if fresh:
            self._tell()

    def _tell(self) -> None:
        """Wake every stream that waits."""
        self.news.set()
        self.news = asyncio.Event()


def read(hub: Hub, job_id: str, cursor: int) -> tuple[list[Sent], bool, set[str]]:
    """The next events of a job, whether they are the last ones, and the ids whose events to wait for."""
    with hub.database.read() as session:
        job = session.get_one(Job, job_id)
        rows = events.after(session, job, cursor, BATCH)
        keys = {job.id, *filter(None, [job.execution_id])}
        return [written(row) for row in rows], job.state.final and len(rows) < BATCH, keys


class Feeds:
    """The feeds of one process, by job.

    Args:
        check_seconds: between two looks at whether a caller may still read.
    """

    def __init__(self, hub: Hub, check_seconds: float = CHECK_SECONDS) -> None:
        self.hub, self.check_seconds = hub, check_seconds
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}

    @contextmanager
    def open(self, job_id: str) -> Iterator[Feed]:
        """The feed of a job, shared with everybody who streams it."""
        if job_id not in self._feeds:
            feed = Feed(self.hub, job_id)
            self._feeds[job_id] = feed, asyncio.create_task(feed.run())
        feed, task = self._feeds[job_id]
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                task.cancel()
                del self._feeds[job_id]

    async def stream(
        self,
        job_id: str,
        cursor: int,
        wanted: Callable[[str], bool],
        owner: str,
        allowed: Callable[[], Awaitable[bool]],
    ) -> AsyncIterator[str]:
        """A job's events above an id as server-sent events, until the last one or until the server stops.

        Args:
            wanted: which types of events to send.
            owner: whose share of the waiting clients this stream counts to.
            allowed: whether the caller may still read; the stream ends where not.
        """
        checked = time.monotonic()
        yield "retry: 1000\n\n"
        with self.hub.waiter(owner), self.open(job_id) as feed:
            while not self.hub.closing:
                if time.monotonic() - checked >= self.check_seconds:
                    if not await allowed():
                        return
                    checked = time.monotonic()
                news, ended, kept = feed.news, feed.ended, feed.after(cursor)
                if kept is None:
                    fresh, ended, _ = await run_in_threadpool(read, self.hub, job_id, cursor)
                else:
                    fresh = kept
                if text := "".join(event.text for event in fresh if wanted(event.type)):
                    yield text
                if fresh:
                    cursor = fresh[-1].id
                elif ended:
                    return
                elif not await _within(news, min(PING_SECONDS, self.check_seconds)):
                    yield ": ping\n\n"


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """True when something happened, False after some seconds without."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
