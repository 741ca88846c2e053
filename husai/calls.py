"""What every call to the service needs: one document, short lists, pages, and answers that are held back."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from husai.errors import Refused, Usage
from husai.models import Document
from husai.transport import Cut, Transport

POLL, SHORTEST_POLL = 25.0, 1.0
"""Seconds for which the service may hold an answer, and the least to which a proxy's impatience brings this down."""
PAGE = 100
D = TypeVar("D", bound=Document)


class Calls:
    """A connection to one service, as one key's owner.

    Args:
        url: address of the service, without `/v1`.
        key: API key, `husai_…`.
        patience: seconds for which an unreachable service (a restart, say) is tried again.
    """

    def __init__(self, url: str, key: str, *, patience: float = 60.0) -> None:
        self._transport = Transport(url, key, patience)
        self._hold = POLL

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _held(self, path: str, seconds: float, **options: Any) -> httpx.Response | None:
        """An answer that the service may hold back for `seconds`; None when something on the way cut the request.

        Proxies end requests after a time that nobody tells: each cut halves how long the next request may be held, and
        each answer lets that grow again by a tenth.
        """
        hold = round(max(0.0, min(self._hold, seconds)), 1)
        options["params"] = {**options.get("params", {}), "wait": hold}
        try:
            response = self._transport.request("GET", path, timeout=hold + 15, held=hold > SHORTEST_POLL, **options)
        except Cut:
            self._hold = max(SHORTEST_POLL, hold / 2)
            return None
        self._hold = min(POLL, 1.1 * self._hold)
        return response

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return object_of(self._transport.request(method, path, **options))

    def _items(self, path: str) -> list[dict[str, Any]]:
        """A short list."""
        return list(self._json("GET", path)["items"])

    def _first(
        self, path: str, model: type[D], limit: int, cursor: str | None = None, **filters: str | list[str] | None
    ) -> tuple[list[D], str | None]:
        """At most `limit` documents of a list, and the cursor of what follows; None where nothing does."""
        documents: list[D] = []
        while True:
            wanted = min(PAGE, limit - len(documents))
            page = self._json("GET", path, params={**filters, "cursor": cursor, "limit": wanted})
            documents += [model.read(item) for item in page["items"]]
            cursor = page.get("next")
            if not cursor or len(documents) >= limit:
                return documents, cursor

    def _pages(self, path: str, model: type[D], **filters: str | list[str] | None) -> Iterator[D]:
        cursor: str | None = None
        while True:
            page = self._json("GET", path, params={**filters, "cursor": cursor, "limit": PAGE})
            yield from (model.read(item) for item in page["items"])
            cursor = page.get("next")
            if not cursor:
                return


def segment(name: str) -> str:
    """A name as one path segment, so that none can lead elsewhere."""
    from urllib.parse import quote

    try:
        return quote(name, safe="") or "-"
    except UnicodeEncodeError:
        raise Usage(f"{name!a} is not a name or id") from None


def object_of(response: httpx.Response) -> dict[str, Any]:
    """The document in an answer.

    Raises:
        Refused: it holds something else.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Refused("bad-answer", "Unexpected answer", f"{response.request.url} did not answer with a document", 502)
    return document
