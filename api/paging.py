"""Keyset pages: an opaque cursor holds the sort key of the last row that was shown."""

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response

from services.problems import Problem
from services.queries.keyset import Column

Limit = Annotated[int, Query(ge=1, le=200, description="rows on one page")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]


def encode(*key: Any) -> str:
    """A sort key as an opaque cursor."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode(cursor: str, *types: type) -> list[Any]:
    """The sort key in a cursor.

    Raises:
        Problem: 400 `bad-cursor`.
    """
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        if [type(value) for value in key] == list(types) and all(_storable(value) for value in key):
            return list(key)
    except (ValueError, TypeError, RecursionError):
        pass
    raise Problem(400, "bad-cursor", "Bad cursor", "cursor: this is not a cursor of this list.")


def _storable(value: Any) -> bool:
    """True for what every database can compare with."""
    return value.isascii() and value.isalnum() if isinstance(value, str) else abs(value) < 2**53


def after(cursor: str | None, columns: Sequence[Column]) -> list[Any] | None:
    """The sort key that a cursor of a list with these columns holds; None without a cursor.

    Raises:
        Problem: 400 `bad-cursor`.
    """
    return None if cursor is None else decode(cursor, *(column.type.python_type for column in columns))


def link_next(request: Request, response: Response, last: Sequence[Any] | None) -> str | None:
    """Name the page that follows a row with the key `last` in a `Link` header; returns its cursor.

    The link is a path, since a caller may send any Host.
    """
    if last is None:
        return None
    cursor = encode(*last)
    response.headers["Link"] = (
        f'<{request.url.path}?{request.url.include_query_params(cursor=cursor).query}>; rel="next"'
    )
    return cursor
