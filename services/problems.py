"""Everything a caller can do wrong, as one exception with a stable RFC 9457 `type`."""

import errno
import sqlite3
from typing import Any

from sqlalchemy.exc import OperationalError

from husai_core.errors import causes


class Problem(Exception):
    """An expected refusal. `slug` never changes its meaning; `detail` is one line for a person."""

    def __init__(self, status: int, slug: str, title: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title, self.detail, self.extra = status, slug, title, detail, extra

    def document(self) -> dict[str, Any]:
        """The problem+json body."""
        return {
            "type": f"urn:husai:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }


def not_found(what: str, name: str) -> Problem:
    """404: nothing of this name, or nothing that the caller may see."""
    return Problem(404, f"unknown-{what}", f"Unknown {what}", f"There is no {what} {name!r}.")


def invalid(slug: str, title: str, detail: str, **extra: Any) -> Problem:
    """422: understood but not acceptable."""
    return Problem(422, slug, title, detail, **extra)


def conflict(slug: str, title: str, detail: str, **extra: Any) -> Problem:
    """409: not possible in the present state."""
    return Problem(409, slug, title, detail, **extra)


FULL = {errno.ENOSPC, errno.EDQUOT}
DISK_FULL = "53100"
"""Postgres' state of a full disk."""


def storage_problem(error: BaseException | None) -> Problem | None:
    """507 `storage-full` if an error, or what led to it, says that a disk is full; else None."""
    if not any(_is_full(cause) for cause in causes(error)):
        return None
    detail = "The disk of the server is full, so nothing was stored; an administrator has to make room."
    return Problem(507, "storage-full", "Storage full", detail)


def _is_full(error: BaseException) -> bool:
    """True when an operating system, SQLite or Postgres says so by its number; words could be a client's."""
    if isinstance(error, OperationalError):
        full_sqlite = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        return full_sqlite or getattr(error.orig, "sqlstate", None) == DISK_FULL
    return isinstance(error, OSError) and error.errno in FULL
