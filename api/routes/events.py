"""What happened to a job: events as a stream or in pages, the log, the lineage and the report."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Literal

from fastapi import Header, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api import schemas, serializers
from api.deps import Context, Credentials, Ctx, Reader, holder, v1_router
from api.http import IfRange, Range, byte_range, bytes_response, content, reply
from api.ids import JobPath
from services import events, jobs
from services.accounts import Principal
from services.problems import Problem
from services.queries import lineage, panels

router = v1_router("jobs", "/jobs/{job_id}")
BATCH = 500
LARGEST = 2**53
SANDBOXED = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-popups"}
"""The report shares its origin with the pages; a browser runs nothing in it."""
EventType = Literal["state", "attempt", "progress", "metrics", "log", "checkpoint", "child"]
Types = Annotated[list[EventType] | None, Query(alias="type", max_length=7)]
STREAM = {200: {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.get("/events", response_model=schemas.Events, responses={200: STREAM[200]})
async def read_events(
    job_id: JobPath,
    context: Ctx,
    principal: Reader,
    request: Request,
    key: Credentials,
    type: Types = None,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="the last event id that you have")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = BATCH,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    last_event_id: Annotated[str | None, Header(description="like `after`; any other text is the beginning")] = None,
) -> Response:
    """A page for `Accept: application/json`; otherwise server-sent events, from the first to the final state."""
    types: list[str] | None = list(type) if type else None
    cursor = after if last_event_id is None else _event_id(last_event_id)
    if "application/json" in accept and "text/event-stream" not in accept:
        page = await run_in_threadpool(_page, context, principal, job_id, cursor, limit, types)
        return reply(schemas.Events(items=page, next=page[-1].id if page else cursor))
    await run_in_threadpool(_check, context, principal, job_id)
    if problem := context.hub.full(principal.owner_id):
        raise Problem(429, "too-many-waiting", "Too many waiting clients", f"{problem}; ask for pages instead.")
    stream = context.feeds.stream(
        job_id, cursor, lambda type: types is None or type in types, principal.owner_id,
        partial(_allowed, request, key),
    )  # fmt: skip
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _allowed(request: Request, key: Credentials) -> bool:
    """True unless the key or the session of a request has ended since."""
    try:
        await holder(request, key)
    except Problem:
        return False
    except SQLAlchemyError:  # the database is away, which ends nobody's rights
        return True
    return True


def _event_id(text: str) -> int:
    """The event id that a client sent back; 0, the beginning, for what was never an id."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0


def _check(context: Context, principal: Principal, job_id: str) -> None:
    with context.database.read() as session:
        jobs.get(session, principal, job_id)


def _page(
    context: Context, principal: Principal, job_id: str, cursor: int, limit: int, types: list[str] | None
) -> list[schemas.Event]:
    with context.database.read() as session:
        rows = events.after(session, jobs.get(session, principal, job_id), cursor, limit, types)
        return [serializers.event(row) for row in rows]


@router.get("/logs", response_class=Response, responses=content("text/plain", "The log"))
def read_log(
    job_id: JobPath, context: Ctx, principal: Reader, range: Range = None, if_range: IfRange = None
) -> Response:
    """The log so far as plain text. Ask for `bytes=N-` to go on where you stopped."""
    with context.database.read() as session:
        jobs.get(session, principal, job_id)
    size = sum(len(piece) for piece in _log(context, principal, job_id))
    span = byte_range(range, size, if_range)

    def read(start: int, end: int) -> Iterator[bytes]:
        position = 0
        for piece in _log(context, principal, job_id):
            if position >= end:
                return
            yield piece[max(0, start - position) : max(0, end - position)]
            position += len(piece)

    return bytes_response(size, span, read, "text/plain; charset=utf-8", {"Cache-Control": "no-cache"})


def _log(context: Context, principal: Principal, job_id: str) -> Iterator[bytes]:
    """The log's text in pieces; each page of events has its own short session."""
    cursor, full = 0, True
    while full:
        with context.database.read() as session:
            rows = events.after(session, jobs.get(session, principal, job_id), cursor, BATCH, ["log"])
        for row in rows:
            text = row.data["text"]
            yield (text if text.endswith("\n") else text + "\n").encode(errors="replace")
        full = len(rows) == BATCH
        cursor = rows[-1].id if rows else cursor


@router.get("/lineage")
def read_lineage(job_id: JobPath, context: Ctx, principal: Reader) -> schemas.Lineage:
    """Jobs and artifacts that led to a job, and what it produced."""
    with context.database.read() as session:
        return serializers.lineage(lineage.of_job(session, principal, jobs.get(session, principal, job_id)))


@router.get("/panels")
def read_panels(job_id: JobPath, context: Ctx, principal: Reader) -> schemas.JobPanels:
    """What there is to see of a job: its kind's panels, and those of a study's children."""
    with context.database.read() as session:
        return serializers.panels(panels.of_job(session, jobs.get(session, principal, job_id)))


@router.get("/report", response_class=HTMLResponse)
def read_report(job_id: JobPath, context: Ctx, principal: Reader) -> HTMLResponse:
    """A page with what there is to see of a job of any kind and in any state, which needs nothing but itself."""
    from api import report

    with context.database.read() as session:
        job = jobs.get(session, principal, job_id)
        return HTMLResponse(report.render(session, context.store, job), headers=SANDBOXED)
