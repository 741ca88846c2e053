"""What can go wrong, and the exit code that says so."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes of `husai`."""

    OK = 0
    FAIL = 1
    USAGE = 2
    TIMEOUT = 3
    INCONCLUSIVE = 4
    SERVICE = 5
    MISMATCH = 6
    INTERRUPTED = 130
    PIPE = 141


FOREIGN = "foreign-answer"


class HusaiError(Exception):
    """Base of all expected errors; its text is one line for a person."""

    slug = "error"
    title = "Error"
    exit_code = Exit.SERVICE

    def document(self) -> dict[str, Any]:
        """The error as a problem object (RFC 9457)."""
        return {"type": f"urn:husai:problem:{self.slug}", "title": self.title, "detail": str(self)}


class Refused(HusaiError):
    """The service answered with a problem. `extra` holds the members that only some problems have.

    The slug `foreign-answer` says that it was something else that answered.
    """

    def __init__(self, slug: str, title: str, detail: str, status: int, **extra: Any) -> None:
        text = " ".join(detail.split()) or title
        matches = extra.get("matches")
        super().__init__(f"{text} {', '.join(map(str, matches))}" if isinstance(matches, list) else text)
        self.slug, self.title, self.detail, self.status, self.extra = slug, title, detail, status, extra
        self.exit_code = Exit.SERVICE if status >= 500 or slug == FOREIGN else Exit.USAGE

    def document(self) -> dict[str, Any]:
        """The problem object as the service sent it."""
        return {**super().document(), "status": self.status, "detail": self.detail, **self.extra}


class Unavailable(HusaiError):
    """The service cannot be reached, or broke off, for longer than the client is ready to wait."""

    slug, title, exit_code = "unavailable", "Service unavailable", Exit.SERVICE


class TimedOut(HusaiError):
    """What was waited for did not happen in time."""

    slug, title, exit_code = "timeout", "Timed out", Exit.TIMEOUT


class Mismatch(HusaiError):
    """Bytes do not have the digest they were asked for by."""

    slug, title, exit_code = "digest-mismatch", "Digest mismatch", Exit.MISMATCH


class Usage(HusaiError):
    """The command was called in a way that cannot work."""

    slug, title, exit_code = "usage", "Wrong usage", Exit.USAGE
