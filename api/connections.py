"""How much a client may ask of the server before it has sent a whole request: bytes, time, and connections.

uvicorn's parser takes header bytes without end and waits for a request for ever, so that a client without a key could
fill the memory or take every file descriptor. `Bounds` keeps what all connections of a process share, `Connection`
what one of them may do.
"""

import asyncio
import json
import logging
import resource
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.problems import Problem

log = logging.getLogger("husai.api")

MOST_FILES = 65_536
"""File descriptors to ask for where the system sets no limit."""
SWEEP_SECONDS = 1.0
LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class Limits:
    """What one process allows.

    Args:
        connections: open at once.
        head_bytes: a request's line and headers.
        headers: how many of them.
        pending_bytes: of all heads that are not complete yet.
        head_seconds: from the start of a connection, or the first byte of a later request, to the end of its headers.
        silent_seconds: between two pieces of a body.
        stall_seconds: while a client does not read what it is sent, as one does that stores a download slowly.
        body_rate: bytes per second that a body brings at least, after the first `silent_seconds`.
        pipelined: requests that wait behind the one that is being answered.
    """

    connections: int
    head_bytes: int = 1 << 16
    headers: int = 128
    pending_bytes: int = 16 << 20
    head_seconds: float = 10.0
    silent_seconds: float = 30.0
    stall_seconds: float = 300.0
    body_rate: float = 1024.0
    pipelined: int = 32


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


class Bounds:
    """The connections of one process: those without a request, and those whose request's body is still coming in."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.pending = limits, 0
        self.all: set[Connection] = set()
        self.idle: dict[Connection, None] = {}
        self.receiving: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._warned = -60.0

    def admit(self, connection: "Connection") -> None:
        """Take a new connection in, and close the oldest idle one where there are too many."""
        self.all.add(connection)
        self.idle[connection] = None
        if self._timer is None:
            self._timer = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        if len(self.all) > self.limits.connections:
            self._warn()
            self._least_wanted(connection.loop.time()).drop()

    def _least_wanted(self, now: float) -> "Connection":
        """Which connection makes room: the oldest idle one; or whose body is slowest; or who reads nothing."""
        if len(self.idle) > 1:
            return next(iter(self.idle))
        if self.receiving:
            return min(self.receiving, key=lambda other: other.rate(now))
        stalled = [other for other in self.all if other.stalled(now) > self.limits.silent_seconds]
        return max(stalled, key=lambda other: other.stalled(now), default=next(iter(self.idle)))

    def count(self, connection: "Connection", size: int) -> None:
        """Count bytes of an incomplete head, and drop the oldest of these where all together are too many."""
        connection.head_bytes += size
        self.pending += size
        while self.pending > self.limits.pending_bytes:
            next((other for other in self.idle if other.head_bytes), connection).drop()

    def settle(self, connection: "Connection") -> None:
        """Count a head no longer: it is complete, or its connection has ended."""
        self.pending -= connection.head_bytes
        connection.head_bytes = 0

    def forget(self, connection: "Connection") -> None:
        """Leave a connection out that has ended."""
        self.settle(connection)
        self.all.discard(connection)
        self.idle.pop(connection, None)
        self.receiving.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what takes too long; goes on every second while there are connections."""
        for connection in list(self.all):
            connection.check(loop.time())
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self.all else None

    def _warn(self) -> None:
        if time.monotonic() - self._warned >= 60:
            self._warned = time.monotonic()
            log.warning("more than %d connections: the oldest idle ones are closed", self.limits.connections)


class Connection(HttpToolsProtocol):
    """One connection, kept within the bounds of its process."""

    bounds: ClassVar[Bounds]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; its first request's headers are due."""
        super().connection_made(transport)
        self.head_bytes = self.size = self.names = self.body_bytes = 0
        self.began: float | None = self.loop.time()
        self.heard = self.began
        self.stuck: float | None = None
        self.cycles: list[RequestResponseCycle] = []
        self.reading_head, self.fresh, self.refused = True, False, False
        self.refusal: Problem | None = None
        self.bounds.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.bounds.forget(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """End the connection at once, without an answer."""
        self.bounds.forget(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head that is not complete yet; what the parser keeps of it is not seen otherwise."""
        if self.refused or self.transport.is_closing():
            return
        self.heard, self.fresh, most = self.loop.time(), False, self.bounds.limits.head_bytes
        super().data_received(data)
        if self.reading_head and not self.refused:
            self.bounds.count(self, min(len(data), most) if self.fresh else len(data))
            if self.head_bytes > most:
                self.refuse(self._too_large())

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.size = self.names = self.body_bytes = 0
        self.reading_head = self.fresh = True
        self.began = self.began or self.loop.time()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        super().on_url(url)
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer after a chunked body."""
        super().on_header(name, value)
        self.names += 1
        self._grow(len(name) + len(value) + 4)

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > self.bounds.limits.head_bytes or self.names > self.bounds.limits.headers:
            self.refusal = self._too_large()
            raise httptools.HttpParserError("the head is too large")

    def _too_large(self) -> Problem:
        limits = self.bounds.limits
        detail = f"The headers may have {limits.head_bytes >> 10} KiB in all, in at most {limits.headers} lines."
        return Problem(431, "headers-too-large", "Headers too large", detail)

    def on_headers_complete(self) -> None:
        """The head is complete: the application answers, while the body comes in."""
        if len(self.pipeline) >= self.bounds.limits.pipelined:
            raise httptools.HttpParserError("too many pipelined requests")
        self.reading_head = False
        self.bounds.settle(self)
        self.bounds.idle.pop(self, None)
        self.bounds.receiving[self] = None
        self.began = self.loop.time()
        super().on_headers_complete()
        self.cycles.append(self.cycle)
        self.cycle.keep_alive, self.keep_alive = False, self.cycle.keep_alive

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self.began = None
        self.bounds.receiving.pop(self, None)
        if not self.cycle.response_started:  # an answer that came before the whole body ends the connection
            self.cycle.keep_alive = self.keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent."""
        super().on_response_complete()
        self.cycles = [cycle for cycle in self.cycles if not cycle.response_complete]
        if not self.transport.is_closing() and self.cycle.response_complete:
            self.bounds.idle[self] = None

    def pause_writing(self) -> None:
        """The client reads more slowly than it is sent to."""
        self.stuck = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self.stuck = None
        super().resume_writing()

    def stalled(self, now: float) -> float:
        """Seconds for which the client has not read what it is sent."""
        return 0.0 if self.stuck is None else now - self.stuck

    def rate(self, now: float) -> tuple[bool, float]:
        """Bytes per second of the body that comes in; whoever has just begun comes after all others."""
        age = now - (self.began or now)
        return age < 1, self.body_bytes / max(age, 1) if age >= 1 else -age

    def check(self, now: float) -> None:
        """End the connection if its client takes too long."""
        limits = self.bounds.limits
        if self.stalled(now) > (limits.silent_seconds if self.refused else limits.stall_seconds):
            self.drop()
        elif self.refused or self.began is None or self.flow.read_paused:
            return
        elif self.reading_head:
            if now - self.began > limits.head_seconds:
                self._give_up()
        elif now - self.heard > limits.silent_seconds or self._slow(now - self.began):
            self.drop()

    def _give_up(self) -> None:
        """Wait no longer for headers; whoever has sent none at all gets no answer."""
        if self.head_bytes:
            detail = "The headers of the request did not arrive in time."
            self.refuse(Problem(408, "request-timeout", "Request timeout", detail))
        else:
            self.transport.close()

    def _slow(self, seconds: float) -> bool:
        limits = self.bounds.limits
        return seconds > limits.silent_seconds and self.body_bytes < limits.body_rate * seconds

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or too much of it."""
        self.refuse(self.refusal or Problem(400, "invalid-request", "Invalid request", msg))

    def refuse(self, problem: Problem) -> None:
        """Answer with a problem and close; what still arrives is thrown away, so that the client gets to read it.

        Requests before it that are not answered yet get no answer; one that is half sent is cut off.
        """
        halfway = any(cycle.response_started and not cycle.response_complete for cycle in self.cycles)
        self._silence()
        if halfway:
            self.refused = True
            self.drop()
            return
        body = json.dumps(problem.document()).encode()
        status = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        headers = f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.refused, self.stuck = True, self.loop.time()
        self.bounds.settle(self)
        self.transport.write(status.encode() + headers.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _silence(self) -> None:
        """Let the application write nothing more: to it, the client has gone."""
        self.pipeline.clear()
        for cycle in self.cycles:
            cycle.disconnected = True
            cycle.message_event.set()


def protocol(limits: Limits) -> type[Connection]:
    """The protocol class of one process, whose connections share one set of bounds."""
    return type("BoundConnection", (Connection,), {"bounds": Bounds(limits)})
