"""The queue, the workers, and what operators look at."""

from typing import Any, Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from api import operations, serializers
from api.deps import Context, Ctx, Reader, v1_router
from api.http import reply
from services.db import at_head
from services.queries import queue as queues

router = v1_router("system")
root = APIRouter(tags=["system"])
PLAIN: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format"}
}


@router.get("/queue")
def queue(context: Ctx, principal: Reader) -> operations.Queue:
    """Unfinished jobs by queue and state."""
    with context.database.read() as session:
        return operations.Queue(queues=queues.depths(session), mine=queues.depths(session, principal.owner_id))


@router.get("/workers")
def workers(context: Ctx, principal: Reader) -> operations.Workers:
    """Worker processes, the one that was seen last first."""
    with context.database.read() as session:
        rows = queues.workers(session)
    items = [
        operations.Worker(
            id=row.id, host=row.host, pid=row.pid, queues=row.queues, device=row.device, slots=row.slots,
            running=running, problem=row.problem, state="silent" if lost and row.state != "gone" else row.state,
            started_at=serializers.rfc3339(row.started_at), seen_at=serializers.rfc3339(row.seen_at),
        )
        for row, running, lost in rows
    ]  # fmt: skip
    return operations.Workers(items=items)


@root.get("/healthz")
async def healthz() -> operations.Health:
    """The process answers."""
    return operations.Health(status="ok")


@root.get("/readyz", response_model=operations.Readiness, responses={503: {"model": operations.Readiness}})
def readyz(context: Ctx) -> Response:
    """200 when requests can be served: the database answers, its schema is this version's, and artifacts can be stored.

    A broken chain of decisions is shown and logged, and stops nothing.
    """
    readiness = _readiness(context)
    return reply(readiness, 200) if readiness.status == "ready" else reply(readiness, 503, {"Retry-After": "2"})


def _readiness(context: Context) -> operations.Readiness:
    try:
        current = at_head(context.database)
        with context.database.read() as session:
            count = queues.live_workers(session)
        (storage, age), chain = context.health.storage(), context.health.chain() if current else True
    except SQLAlchemyError:
        return operations.Readiness(status="not ready", database=False, schema_at_head=False, workers=0)
    status: Literal["ready", "not ready"] = "ready" if current and storage else "not ready"
    return operations.Readiness(
        status=status,
        database=True,
        schema_at_head=current,
        storage=storage,
        storage_age=age,
        chain=chain,
        workers=count,
    )


@root.get("/metrics", response_class=Response, responses=PLAIN)
def metrics(context: Ctx) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)
