"""Keyset pages: the sort key of the last row on a page is where the next page begins."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

Column = InstrumentedAttribute[Any]
Key = Sequence[Any]


def newest_first(
    session: Session, query: Select[Any], columns: Sequence[Column], after: Key | None, limit: int
) -> tuple[list[Any], list[Any] | None]:
    """A page of rows in descending order of `columns`, and the key of its last row if another page follows.

    Args:
        columns: together unique.
        after: the key of the last row of the page before; None for the first page.
    """
    if after is not None:
        query = query.where(tuple_(*columns) < tuple_(*after))
    rows = list(session.scalars(query.order_by(*(column.desc() for column in columns)).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], [getattr(rows[limit - 1], column.key) for column in columns]
