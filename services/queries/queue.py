"""How much work is waiting and running, and who does it."""

from collections import defaultdict

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from husai_core.kinds.kind import QUEUES
from services.db import now
from services.states import LIVE, State
from services.tables import Execution, Job, Worker

SILENT_SECONDS = 90
"""A worker that has not reported itself for so long is called silent."""
MOST_WORKERS = 200


def depths(session: Session, owner_id: str | None = None) -> dict[str, dict[str, int]]:
    """Unfinished jobs by queue and state: of one owner, or of everybody."""
    query = select(Job.kind, Job.state, func.count()).where(Job.state.in_(LIVE)).group_by(Job.kind, Job.state)
    if owner_id is not None:
        query = query.where(Job.owner_id == owner_id)
    counts: dict[str, dict[str, int]] = {queue: defaultdict(int) for queue in sorted(set(QUEUES.values()))}
    for kind, state, count in session.execute(query):
        counts[QUEUES[kind.split(".")[0]]][str(state)] += count
    return counts


def workers(session: Session) -> list[tuple[Worker, int, bool]]:
    """Workers with the attempts that each holds and whether it is silent, the one that was seen last first."""
    held = (
        select(func.count())
        .where(Execution.worker_id == Worker.id, Execution.state == State.RUNNING)
        .correlate(Worker)
        .scalar_subquery()
    )
    silent = Worker.seen_at < now() - SILENT_SECONDS
    query = select(Worker, held, silent).order_by(Worker.seen_at.desc(), Worker.id).limit(MOST_WORKERS)
    return [(worker, count, lost) for worker, count, lost in session.execute(query)]


def live_workers(session: Session) -> int:
    """How many workers have reported themselves lately."""
    return session.scalar(select(func.count()).where(Worker.seen_at > now() - SILENT_SECONDS)) or 0
