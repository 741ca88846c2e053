"""Keyset pages: an opaque cursor holds the sort key of the last row that was shown."""

import base64
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query, Request, Response
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.problems import Problem

Limit = Annotated[int, Query(ge=1, le=200, description="rows on one page")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
Column = InstrumentedAttribute[Any]


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
        if [type(part) for part in key] == list(types) and all(_storable(part) for part in key):
            return list(key)
    except (ValueError, TypeError, RecursionError):
        pass
    raise Problem(400, "bad-cursor", "Bad cursor", "cursor: this is not a cursor of this list.")


def _storable(part: Any) -> bool:
    """True for what every database can compare with."""
    return part.isascii() and part.isalnum() if isinstance(part, str) else abs(part) < 2**53


def newest_first(
    session: Session, query: Select[Any], columns: Sequence[Column], cursor: str | None, limit: int
) -> tuple[list[Any], str | None]:
    """A page of rows in descending order of `columns`, and the cursor of the next page."""
    if cursor is not None:
        last = decode(cursor, *(column.type.python_type for column in columns))
        query = query.where(tuple_(*columns) < tuple_(*last))
    rows = list(session.scalars(query.order_by(*(column.desc() for column in columns)).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(*(getattr(rows[limit - 1], column.key) for column in columns))


def link_next(request: Request, response: Response, cursor: str | None) -> str | None:
    """Name the next page in a `Link` header; returns the cursor."""
    if cursor is not None:
        response.headers["Link"] = f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'
    return cursor
