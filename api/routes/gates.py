"""Candidates, and the decisions of policies about them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import evidence, fields, paging, schemas, serializers
from api import submission as submissions
from api.badge import NONE, badge
from api.deps import Context, Ctx, Gatekeeper, Reader, v1_router
from api.http import (
    IMMUTABLE,
    IdempotencyKey,
    IfNoneMatch,
    NamePath,
    matches,
    reply,
    unless_matched,
)
from api.ids import CandidatePath, DecisionPath
from api.routes.jobs import submit_for
from api.waiting import DECISIONS
from services import decisions, policies, tables
from services.accounts import Principal
from services.jobs import Reference, Submission
from services.problems import not_found
from services.queries import candidates as candidate_queries
from services.queries import decisions as decision_queries
from services.queries import ids
from services.queries import jobs as job_queries

router = v1_router("gates")
Subject = Annotated[fields.DigestPrefix, Query(description="the candidate's digest")]
CACHED = 256


@router.get("/candidates")
def list_candidates(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Reader,
    controls: Annotated[bool, Query(description="also the SAEs that gates train as their own controls")] = True,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> schemas.Candidates:
    """SAE checkpoints that a gate may judge, newest first."""
    after = paging.after(cursor, candidate_queries.KEY)
    with context.database.read() as session:
        rows, last = candidate_queries.page(
            session, context.settings, principal, after=after, limit=limit, controls=controls
        )
        jobs = job_queries.visible(session, principal, {row.execution_id for row in rows})
    items = [serializers.candidate(row, jobs) for row in rows]
    return schemas.Candidates(items=items, next=paging.link_next(request, response, last))


@router.get("/candidates/{candidate}")
def read_candidate(candidate: CandidatePath, context: Ctx, principal: Reader) -> schemas.Candidate:
    """One candidate."""
    with context.database.read() as session:
        row = candidate_queries.get(session, context.settings, context.store, principal, candidate)
        return serializers.candidate(row, job_queries.visible(session, principal, {row.execution_id}))


@router.post("/gates/{policy}/decisions", status_code=202, response_model=schemas.Job)
def decide(
    policy: NamePath,
    body: schemas.DecisionRequest,
    context: Ctx,
    principal: Gatekeeper,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask a policy about a candidate: a `release.gate` job, whose decision is signed and kept."""
    with context.database.read() as session:
        policies.active(session, policy)
        candidate = ids.candidate(session, context.settings, principal, body.candidate)
        candidate_queries.get(session, context.settings, context.store, principal, candidate)
        inputs: dict[str, list[Reference]] = {"candidate": [candidate], "evidence": [*(body.evidence or [])]}
        submission = Submission("release.gate", {"policy": policy}, inputs, priority="gate")
        submission = submissions.complete(context, session, principal, submission)
        evidence.add_known(context, session, principal, submission, idempotency_key)
    return submit_for(context, principal, submission, idempotency_key)


def decision_document(
    context: Context, session: Session, principal: Principal, row: tables.Decision
) -> schemas.Decision:
    """A decision's document, kept in memory because it never changes."""
    name = (row.id, principal.owner_id, principal.admin)
    if name not in context.decisions:
        whole = decisions.document(session, context.store, row)
        job = job_queries.visible(session, principal, {row.execution_id}).get(row.execution_id)
        if len(context.decisions) >= CACHED:
            context.decisions.clear()
        context.decisions[name] = schemas.Decision(
            id=row.id, seq=row.seq, policy=row.policy, policy_digest=row.policy_digest, candidate=row.candidate,
            verdict=row.verdict, job=job, as_of=whole["as_of"], rules=whole["rules"], reasons=whole["reasons"],
            created_at=serializers.rfc3339(row.created_at),
        )  # fmt: skip
    return context.decisions[name]


def _latest(
    session: Session, context: Context, principal: Principal, policy: str, subject: str
) -> tables.Decision | None:
    """The decision of a policy about a candidate that was judged last, of those that the caller may see."""
    if len(subject) < ids.DIGEST:
        subject = ids.candidate(session, context.settings, principal, subject)
    return decision_queries.latest(session, context.settings, principal, policy, subject)


@router.get(
    "/gates/{policy}/decisions/latest",
    response_model=schemas.Decision,
    responses={304: {"description": "Still the decision in `If-None-Match`"}},
)
async def latest(
    policy: NamePath,
    context: Ctx,
    principal: Reader,
    subject: Subject,
    wait: Annotated[float, Query(ge=0, le=30, description="seconds to wait for a decision")] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The decision about a candidate that was judged last; 404 while there is none."""

    def load() -> schemas.Decision | None:
        with context.database.read() as session:
            policies.entry(session, policy)
            row = _latest(session, context, principal, policy, subject)
            return None if row is None else decision_document(context, session, principal, row)

    def ready(decision: schemas.Decision | None) -> bool:
        return decision is not None and not matches(if_none_match, f'"{decision.id}"')

    document = await context.hub.until(load, ready, lambda _: {DECISIONS}, wait, principal.owner_id)
    if document is None:
        problem = not_found("decision", f"{policy}/{subject}")
        problem.extra["headers"] = {"Retry-After": "2"}
        raise problem
    return unless_matched(if_none_match, f'"{document.id}"', partial(reply, document))


@router.get("/gates/{policy}/badge.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
def read_badge(
    policy: NamePath, context: Ctx, principal: Reader, subject: Subject, if_none_match: IfNoneMatch = None
) -> Response:
    """A picture of the newest verdict about a candidate."""
    with context.database.read() as session:
        policies.entry(session, policy)
        row = _latest(session, context, principal, policy, subject)
    verdict = row.verdict if row else NONE
    picture = Response(badge(policy, verdict), media_type="image/svg+xml")
    return unless_matched(
        if_none_match, f'"{row.id if row else verdict}"', lambda: picture, {"Cache-Control": "private, max-age=60"}
    )


@router.get("/decisions")
def list_decisions(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Reader,
    job: Annotated[fields.JobId | None, Query(description="only what this job decided")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> schemas.Decisions:
    """Decisions, newest first: everybody's where the lab shares results, otherwise yours."""
    after = paging.after(cursor, decision_queries.KEY)
    with context.database.read() as session:
        job = job and ids.job(session, principal, job)
        rows, last = decision_queries.page(session, context.settings, principal, job=job, after=after, limit=limit)
        items = [decision_document(context, session, principal, row) for row in rows]
    return schemas.Decisions(items=items, next=paging.link_next(request, response, last))


def _immutable(etag: str, if_none_match: str | None, answer: Callable[[], Response]) -> Response:
    return unless_matched(if_none_match, etag, answer, {"Cache-Control": IMMUTABLE})


@router.get("/decisions/{decision_id}", response_model=schemas.Decision)
async def read_decision(
    decision_id: DecisionPath, context: Ctx, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One decision. It never changes, so one that was read lately is answered from memory, without a thread."""

    def load() -> schemas.Decision:
        with context.database.read() as session:
            row = decision_queries.get(session, context.settings, principal, decision_id)
            return decision_document(context, session, principal, row)

    document = context.decisions.get((decision_id, principal.owner_id, principal.admin))
    if document is None:
        document = await run_in_threadpool(load)
    return _immutable(f'"{document.id}"', if_none_match, partial(reply, document))


@router.get("/decisions/{decision_id}/bundle", response_model=dict[str, Any])
def read_bundle(
    decision_id: DecisionPath, context: Ctx, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Everything that `husai verify` needs to check a decision offline."""
    with context.database.read() as session:
        bundle = decisions.bundle(
            session, context.store, decision_queries.get(session, context.settings, principal, decision_id)
        )
    return _immutable(f'"{decision_id}-bundle"', if_none_match, lambda: JSONResponse(bundle))
