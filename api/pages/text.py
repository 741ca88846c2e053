"""Values as people read them on pages."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from husai_core.panels import Tone
from husai_core.render.numbers import cell, compact, duration, size

TONES: Mapping[str, Tone] = {
    "succeeded": "good",
    "failed": "bad",
    "timed_out": "bad",
    "blocked": "unknown",
    "cancelled": "neutral",
    "pass": "good",
    "fail": "bad",
    "inconclusive": "unknown",
    "ready": "good",
    "silent": "bad",
}
SIGNS: Mapping[Tone, str] = {"good": "✓", "bad": "✕", "unknown": "?", "neutral": ""}
STORED = "stored result"
"""What is said of a job that took no time, since an equal one ran before."""
LIVE_SIGNS = {"running": "▸", "queued": "·", "waiting": "·", "cancelled": "–"}


def short(value: str | None) -> str:
    """The first digits of an id or a digest: 8 of a job's id, 12 of a digest."""
    return "" if value is None else value[: 12 if len(value) == 64 else 8]


def instant(value: str | None) -> datetime | None:
    """An RFC 3339 text as an instant in UTC."""
    if not value:
        return None
    at = datetime.fromisoformat(value)
    try:
        return at.astimezone(UTC)
    except OverflowError:  # within a day of the first or the last instant that a datetime holds
        return at.replace(tzinfo=UTC)


def when(value: str | None) -> str:
    """An instant to the minute, in UTC."""
    at = instant(value)
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "–"


def ago(value: str | None) -> str:
    """How long ago an instant was."""
    at = instant(value)
    if at is None:
        return "–"
    seconds = max(0.0, (datetime.now(UTC) - at).total_seconds())
    for length, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


def day(seconds: float) -> str:
    """Unix seconds to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def span(start: str | None, end: str | None) -> str:
    """The time between two instants, the second of which may be now."""
    first, last = instant(start), instant(end)
    if first is None:
        return "–"
    return duration(max(0.0, ((last or datetime.now(UTC)) - first).total_seconds()))


def span_of(job: Any, family: Any) -> str:
    """How long a job took or has taken; a study's time begins when it was made. A blocked job takes none."""
    if job.reused_from:
        return STORED
    if job.state == "blocked":
        return "–"
    return span(job.created_at if family else job.started_at, job.finished_at)


def tone(word: str) -> Tone:
    """How a state or a verdict is meant."""
    return TONES.get(str(word), "neutral")


def sign(word: str) -> str:
    """A sign that says a state or a verdict without colour."""
    return SIGNS[tone(word)] or LIVE_SIGNS.get(str(word), "")


def count(value: float) -> str:
    """A whole number with its thousands set apart."""
    return cell(value, "integer")


def words(name: str) -> str:
    """A state's name as words."""
    return str(name).replace("_", " ")


def as_json(value: Any) -> str:
    """A document, indented."""
    return json.dumps(value, indent=2, ensure_ascii=False)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "short": short, "when": when, "ago": ago, "span": span, "tone": tone, "sign": sign, "words": words, "size": size,
    "count": count, "compact": compact, "duration": duration, "json": as_json, "day": day,
}  # fmt: skip
