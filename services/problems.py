"""Everything a caller can do wrong, as one exception with a stable RFC 9457 `type`."""

import errno
from typing import Any


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
FULL_WORDS = ("database or disk is full", "No space left on device", "disk full")
"""What SQLite, an operating system and Postgres say about a full disk."""


def storage_problem(error: BaseException | None) -> Problem | None:
    """507 `storage-full` if an error, or what led to it, says that a disk is full; else None."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        original = getattr(error, "orig", None)
        words = str(original or error)
        if getattr(error, "errno", None) in FULL or any(phrase in words for phrase in FULL_WORDS):
            detail = "The disk of the server is full, so nothing was stored; an administrator has to make room."
            return Problem(507, "storage-full", "Storage full", detail)
        error = error.__cause__ or error.__context__
    return None
