"""Fields of a spec that are instants: set to the database's time where they are left out, never far ahead of it."""

from datetime import UTC, datetime
from typing import Any

from husai_core.kinds.kind import BaseSpec, Kind
from services.problems import invalid

AHEAD_SECONDS = 300
"""How far clocks may differ. An instant further ahead would make every evidence stale and its decision the latest."""


def stamped(kind: Kind, spec: dict[str, Any], clock: float) -> dict[str, Any]:
    """A spec whose absent instants are the database's `clock`."""
    present = datetime.fromtimestamp(clock, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return spec | {name: present for name in fields(kind) if spec.get(name) is None}


def check(kind: Kind, spec: BaseSpec, clock: float) -> None:
    """Refuse an instant that lies ahead.

    Raises:
        Problem: `as-of-ahead`.
    """
    for name in fields(kind):
        value = getattr(spec, name)
        if value is not None and datetime.fromisoformat(value).timestamp() > clock + AHEAD_SECONDS:
            detail = f"{kind.name}: {name}: {value} lies ahead; it may be the present at the latest."
            raise invalid("as-of-ahead", "Instant lies ahead", detail, field=name)


def fields(kind: Kind) -> list[str]:
    """The fields of a kind's spec that are instants."""
    extras = {name: info.json_schema_extra for name, info in kind.spec.model_fields.items()}
    return [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("stamp") == "now"]
