"""Everything a caller can do wrong, as one exception with a stable RFC 9457 `type`."""

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
