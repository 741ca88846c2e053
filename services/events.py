"""What happened, in order: state changes of jobs, and attempts, progress, metrics and log lines of executions."""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from services.db import clock
from services.tables import Event, Job


def append(
    session: Session, type: str, data: dict[str, Any], *, job: Job | None = None, execution_id: str | None = None
) -> None:
    """Add one event. The caller holds the row of its job or execution, which keeps ids in commit order."""
    session.add(Event(job=job, execution_id=execution_id, at=clock(session), type=type, data=data))


def after(session: Session, job: Job, cursor: int, limit: int, types: list[str] | None = None) -> list[Event]:
    """A job's events with an id above `cursor`, its execution's among them."""
    mine = Event.job_id == job.id
    if job.execution_id:
        mine = or_(mine, Event.execution_id == job.execution_id)
    query = select(Event).where(mine, Event.id > cursor)
    if types:
        query = query.where(Event.type.in_(types))
    return list(session.scalars(query.order_by(Event.id).limit(limit)))


def latest(session: Session, job: Job, limit: int, types: list[str]) -> list[Event]:
    """The newest events of some types, in their order; of a long job's metrics these are the newest points."""
    mine = Event.job_id == job.id
    if job.execution_id:
        mine = or_(mine, Event.execution_id == job.execution_id)
    query = select(Event).where(mine, Event.type.in_(types)).order_by(Event.id.desc()).limit(limit)
    return list(session.scalars(query))[::-1]
