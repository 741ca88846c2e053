"""Fields of a spec that are instants: the database's time where they are left out, near it where they are not."""

from datetime import UTC, datetime
from typing import Any

from husai_core.kinds.kind import BaseSpec, Kind
from services.problems import invalid

AHEAD_SECONDS = 300
"""How far clocks may differ. An instant further ahead would make every evidence stale and its decision the latest."""

EARLIEST_YEAR = 2020
"""Before it there was nothing to decide; and the first instants of all cannot be told in UTC."""


def stamped(kind: Kind, spec: dict[str, Any], clock: float) -> dict[str, Any]:
    """A spec whose absent instants are the database's `clock`."""
    present = datetime.fromtimestamp(clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return spec | {name: present for name in fields(kind) if spec.get(name) is None}


def check(kind: Kind, spec: BaseSpec, clock: float) -> None:
    """Refuse an instant that lies ahead, or in another age.

    Raises:
        Problem: `as-of-ahead` or `as-of-past`.
    """
    for name in fields(kind):
        value = getattr(spec, name)
        if value is None:
            continue
        at = datetime.fromisoformat(value)
        if at.year < EARLIEST_YEAR:
            detail = f"{kind.name}: {name}: {value} is too long ago; it may be of {EARLIEST_YEAR} at the earliest."
            raise invalid("as-of-past", "Instant too long ago", detail, field=name)
        if at.timestamp() > clock + AHEAD_SECONDS:
            detail = f"{kind.name}: {name}: {value} lies ahead; it may be the present at the latest."
            raise invalid("as-of-ahead", "Instant lies ahead", detail, field=name)


def fields(kind: Kind) -> list[str]:
    """The fields of a kind's spec that are instants."""
    extras = {name: info.json_schema_extra for name, info in kind.spec.model_fields.items()}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("stamp") == "now"]
