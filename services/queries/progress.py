"""How fast running work goes, from what it reported during the last minute."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.db import now
from services.tables import Event

WINDOW_SECONDS = 60


def rates(session: Session, execution_ids: Collection[str]) -> dict[str, float]:
    """Units of work per second of each execution that reported at least twice and went on.

    Two queries, however many executions there are: the first and the last report in the window of each.
    """
    if not execution_ids:
        return {}
    recent = (
        select(func.min(Event.id), func.max(Event.id))
        .where(Event.execution_id.in_(execution_ids), Event.type == "progress", Event.at > now() - WINDOW_SECONDS)
        .group_by(Event.execution_id)
    )
    ids = {id for pair in session.execute(recent) for id in pair}
    reports: dict[str, list[Event]] = defaultdict(list)
    for event in session.scalars(select(Event).where(Event.id.in_(ids)).order_by(Event.id)) if ids else ():
        reports[event.execution_id or ""].append(event)
    speeds = {execution_id: _speed(pair[0], pair[-1]) for execution_id, pair in reports.items()}
    return {execution_id: speed for execution_id, speed in speeds.items() if speed is not None}


def _speed(first: Event, last: Event) -> float | None:
    """Work per second between two reports; None when the work began anew or stood still."""
    seconds, done = last.at - first.at, last.data["done"] - first.data["done"]
    return done / seconds if seconds > 0 and done > 0 and first.data["unit"] == last.data["unit"] else None
