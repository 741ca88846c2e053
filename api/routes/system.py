"""The queue, the workers, and what operators look at."""

from collections import defaultdict
from typing import Any, Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api import schemas, serializers
from api.deps import Context, Ctx, Reader
from api.http import reply
from husai_core.kinds.kind import QUEUES
from services import tables
from services.db import at_head, now
from services.states import LIVE, State

router = APIRouter(tags=["system"])
root = APIRouter(tags=["system"])
SILENT_SECONDS = 90
PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format"}
}


@router.get("/queue")
def queue(context: Ctx, principal: Reader) -> schemas.Queue:
    """Unfinished jobs by queue and state."""
    with context.database.read() as session:
        return schemas.Queue(queues=_depths(session), mine=_depths(session, principal.owner_id))


def _depths(session: Session, owner_id: str | None = None) -> dict[str, dict[str, int]]:
    row = tables.Job
    query = select(row.kind, row.state, func.count()).where(row.state.in_(LIVE)).group_by(row.kind, row.state)
    if owner_id is not None:
        query = query.where(row.owner_id == owner_id)
    found: dict[str, dict[str, int]] = {queue: defaultdict(int) for queue in sorted(set(QUEUES.values()))}
    for kind, state, count in session.execute(query):
        found[QUEUES[kind.split(".")[0]]][str(state)] += count
    return found


@router.get("/workers")
def workers(context: Ctx, principal: Reader) -> schemas.Workers:
    """Worker processes, the one that was seen last first."""
    row, execution = tables.Worker, tables.Execution
    held = (
        select(func.count())
        .where(execution.worker_id == row.id, execution.state == State.RUNNING)
        .correlate(row)
        .scalar_subquery()
    )
    silent = row.seen_at < now() - SILENT_SECONDS
    query = select(row, held, silent).order_by(row.seen_at.desc(), row.id).limit(200)
    with context.database.read() as session:
        rows = session.execute(query).tuples().all()
    items = [
        schemas.Worker(
            id=one.id, host=one.host, pid=one.pid, queues=one.queues, device=one.device, slots=one.slots,
            running=running, state="silent" if lost and one.state != "gone" else one.state,
            started_at=serializers.rfc3339(one.started_at), seen_at=serializers.rfc3339(one.seen_at),
        )
        for one, running, lost in rows
    ]  # fmt: skip
    return schemas.Workers(items=items)


@root.get("/healthz")
async def healthz() -> schemas.Health:
    """The process answers."""
    return schemas.Health(status="ok")


@root.get("/readyz", response_model=schemas.Readiness, responses={503: {"model": schemas.Readiness}})
def readyz(context: Ctx) -> Response:
    """200 when requests can be served: the database answers and its schema is this version's."""
    readiness = _readiness(context)
    return reply(readiness, 200) if readiness.status == "ready" else reply(readiness, 503, {"Retry-After": "2"})


def _readiness(context: Context) -> schemas.Readiness:
    try:
        current = at_head(context.database)
        with context.database.read() as session:
            count = session.scalar(select(func.count()).where(tables.Worker.seen_at > now() - SILENT_SECONDS)) or 0
    except SQLAlchemyError:
        return schemas.Readiness(status="not ready", database=False, schema_at_head=False, workers=0)
    status: Literal["ready", "not ready"] = "ready" if current else "not ready"
    return schemas.Readiness(status=status, database=True, schema_at_head=current, workers=count)


@root.get("/metrics", response_class=Response, responses=PLAIN)
def metrics(context: Ctx) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)
