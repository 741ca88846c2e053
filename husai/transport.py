"""HTTP with patience: problems become `Refused`; short outages, restarts and `Retry-After` are waited out."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from husai.errors import FOREIGN, Refused, TimedOut, Unavailable, Usage

SILENCE = 30.0
"""Seconds without a byte after which a connection counts as broken."""
OURS = "urn:husai:problem:"
RESTARTING = frozenset({502, 503, 504})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
UNSENDABLE = (UnicodeError, httpx.InvalidURL, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
CUT = frozenset({502, 504})
"""What a proxy answers when it has waited long enough for the service."""
Content = bytes | Callable[[], Iterator[bytes]] | None


class Cut(Exception):
    """Something between here and the service broke off a request that the service was allowed to hold."""


class Transport:
    """One connection pool to one service.

    Args:
        url: address of the service, without `/v1`.
        key: API key.
        patience: seconds for which an unreachable service is tried again.

    Raises:
        Usage: address or key are of a form that cannot be sent.
    """

    def __init__(self, url: str, key: str, patience: float) -> None:
        self.url, self.patience, self.deadline = url.rstrip("/"), patience, math.inf
        host = _host(self.url)
        if not (key.isascii() and key.isprintable()):
            raise Usage("the API key holds characters that no key has")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=host not in LOOPBACK,  # no proxy between two processes of one machine
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: Content = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        timeout: float | None = None,
        held: bool = False,
    ) -> httpx.Response:
        """Send a request; try again while that is safe and patience lasts.

        Args:
            content: a body, or a function that starts it anew for each try.
            repeatable: whether doing it twice does no harm; by default true for all methods but POST.
            timeout: seconds of silence before the connection counts as broken.
            held: the service may hold its answer back for long, so that a proxy may cut the request: say so by `Cut`.

        Raises:
            Refused: the service answered with a problem.
            Unavailable: it did not answer in time.
            Cut: a request that may be `held` was broken off.
            TimedOut: `deadline`, by the monotonic clock, has passed.
            Usage: an argument cannot be sent.
        """
        if not all(value.isprintable() for value in (headers or {}).values()):
            raise Usage("an argument holds characters that cannot be sent")
        safe = method != "POST" if repeatable is None else repeatable
        retry = Backoff(self.patience)
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"the time is over, and {self.url} has not answered")
            try:
                response = self._http.request(
                    method,
                    path,
                    params=_present(params),
                    json=json,
                    content=content() if callable(content) else content,
                    headers=headers,
                    timeout=httpx.Timeout(min(left, SILENCE if timeout is None else timeout), connect=min(left, 5.0)),
                )
            except UNSENDABLE as error:
                raise Usage(f"an argument holds characters that cannot be sent: {_shown(error)}") from error
            except httpx.HTTPError as error:
                if held and is_cut(error):
                    raise Cut from error
                if not (safe or isinstance(error, UNSENT)) or not retry.sleep(until=self.deadline):
                    raise self.unavailable(error) from error
                continue
            if response.is_success or response.status_code == 304:
                return response
            if held and response.status_code in CUT:
                raise Cut
            if not (_may_repeat(response, safe) and retry.sleep(retry_after(response.headers), self.deadline)):
                raise problem(response)

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], timeout: float | None = None) -> Iterator[httpx.Response]:
        """One GET whose body is read bit by bit; connection trouble is the caller's to resume from.

        Raises:
            Refused: the service answered with a problem.
        """
        limits = httpx.Timeout(SILENCE if timeout is None else timeout, connect=5.0)
        with self._http.stream("GET", path, headers=headers, timeout=limits) as response:
            if not response.is_success:
                response.read()
                raise problem(response)
            yield response

    def unavailable(self, error: Exception) -> Unavailable:
        """The error to raise when patience has run out."""
        return Unavailable(f"no answer from {self.url}: {str(error) or type(error).__name__}")


class Backoff:
    """Jittered, growing pauses until `patience` seconds have passed since the first trouble."""

    def __init__(self, patience: float) -> None:
        self._patience, self._pause = patience, 0.1
        self._deadline: float | None = None

    def sleep(self, at_least: float = 0.0, until: float = math.inf) -> bool:
        """Pause before another try, but not beyond `until`; False, without a pause, when there shall be none."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._patience
        pause = max(at_least, self._pause * random.uniform(0.5, 1.0))
        if now + pause > self._deadline:
            return False
        time.sleep(max(0.0, min(pause, until - now)))
        self._pause = min(2 * self._pause, 5.0)
        return True

    def reset(self) -> None:
        """Forget the trouble: it works again."""
        self._deadline, self._pause = None, 0.1


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a `Retry-After` header asks for (a number or a date); 0 without one."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def problem(response: httpx.Response) -> Refused:
    """The refusal in a response; one that no HUSAI service sent is described by its status."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    status, phrase = response.status_code, response.reason_phrase or "error"
    sent = f"{response.request.method} {response.request.url}: {status} {phrase}"
    if not str(document.get("type")).startswith(OURS):
        return Refused(FOREIGN, phrase, f"{sent}, not from a HUSAI service", status)
    extra = {k: v for k, v in document.items() if k not in {"type", "title", "detail", "status"}}
    slug = document["type"].removeprefix(OURS)
    return Refused(slug, str(document.get("title", phrase)), str(document.get("detail") or sent), status, **extra)


def is_cut(error: Exception) -> bool:
    """Whether a request was broken off after it had been sent: by a proxy's 502 or 504, or without any answer."""
    if isinstance(error, Refused):
        return error.status in CUT
    return isinstance(error, httpx.TransportError) and not isinstance(error, UNSENT)


def _may_repeat(response: httpx.Response, safe: bool) -> bool:
    """A request that was turned away unprocessed may be sent again, and a safe one whenever the service restarts."""
    if "retry-after" in response.headers and response.status_code in {429, 503}:
        return True
    return safe and response.status_code in RESTARTING


def _host(url: str) -> str:
    """The host of an address.

    Raises:
        Usage: it is not the address of a service.
    """
    try:
        parts, host = urlsplit(url), httpx.URL(url).host
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and " " not in url:
            return host
    except (ValueError, httpx.InvalidURL):
        pass
    raise Usage(f"{url!r} is not the address of a service, such as http://127.0.0.1:8765")


def _shown(error: Exception) -> str:
    return ascii(error.object)[:200] if isinstance(error, UnicodeEncodeError) else str(error)


def _present(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else {name: value for name, value in params.items() if value is not None}
