"""Figures about the whole service, for `/metrics`."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.db import now
from services.states import LIVE
from services.tables import Counter, Execution, Job, Outbox, Worker


def jobs_by_state(session: Session) -> list[tuple[str, int]]:
    """How many jobs are in each state."""
    rows = session.execute(select(Job.state, func.count()).group_by(Job.state))
    return [(str(state), count) for state, count in rows]


def live_executions(session: Session) -> list[tuple[str, str, int]]:
    """Unfinished executions by queue and state."""
    query = select(Execution.queue, Execution.state, func.count()).where(Execution.state.in_(LIVE))
    rows = session.execute(query.group_by(Execution.queue, Execution.state))
    return [(queue, str(state), count) for queue, state, count in rows]


def counters(session: Session) -> dict[str, int]:
    """Everything that is counted in the database."""
    return {row.name: row.value for row in session.scalars(select(Counter))}


def outbox(session: Session) -> int:
    """Wake-up messages that are still to be sent."""
    return session.scalar(select(func.count()).select_from(Outbox)) or 0


def heartbeat_ages(session: Session) -> dict[str, float]:
    """Seconds since each worker was seen, without those that have said that they end."""
    rows = session.execute(select(Worker.id, now() - Worker.seen_at).where(Worker.state != "gone"))
    return dict(rows.all())
