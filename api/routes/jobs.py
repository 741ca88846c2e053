"""Submit, look up, list, cancel, retry and rerun jobs."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query, Request, Response

from api import evidence, fields, kinds, paging, plan, schemas, serializers
from api import submission as submissions
from api.deps import Context, Ctx, Reader, Submitter, v1_router
from api.http import IdempotencyKey, IfNoneMatch, matches, reply, unless_matched
from api.ids import JobPath
from services import jobs, tables
from services.accounts import Principal
from services.artifacts import read_json
from services.queries import ids
from services.queries import jobs as job_queries
from services.queries.jobs import Filters
from services.states import State

if TYPE_CHECKING:
    Body = schemas.JobRequest
else:
    Body = kinds.request_model()

router = v1_router("jobs")
ACCEPTED: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Job | schemas.Plan, "description": "Answered at once, or the plan of a dry run"},
}
Label = Annotated[fields.Label | None, Query()]
Heavy = Literal["spec", "inputs", "outputs"]


def etag(job: schemas.Job) -> str:
    """The strong ETag of a job's present version."""
    return f'"{job.id}-{job.version}"'


def accepted(job: schemas.Job, created: bool = True) -> Response:
    """202 for work that is still to be done; 200 for a job that existed or was answered at once."""
    headers = {"Location": f"/v1/jobs/{job.id}", "ETag": etag(job)}
    if job.state.final or not created:
        return reply(job, 200, headers)
    return reply(job, 202, headers | {"Retry-After": "1"})


@router.post("/jobs", status_code=202, response_model=schemas.Job, responses=ACCEPTED)
def submit(
    body: Body,
    context: Ctx,
    principal: Submitter,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="answer with the plan and store nothing")] = False,
) -> Response:
    """Submit a job, or see what it would do."""
    submissions.check_scope(principal, body.kind, body.priority)
    submission = submissions.from_body(body)
    if submission.inputs:
        with context.database.read() as session:
            submission = submissions.complete(context, session, principal, submission)
    if submission.kind == submissions.DECIDING:
        with context.database.read() as session:
            evidence.add_known(context, session, principal, submission, idempotency_key)
    if dry_run:
        with context.database.read() as session:
            submissions.check_visible(context, session, principal, submission)
            return reply(plan.plan(context, session, submission))
    with context.database.read() as session:
        submissions.check_facts(context, session, principal, submission)
    return submit_for(context, principal, submission, idempotency_key)


def submit_for(context: Context, principal: Principal, submission: jobs.Submission, key: str | None) -> Response:
    """Submit on behalf of a caller."""

    def work(session: Any) -> tuple[schemas.Job, bool]:
        submissions.check_visible(context, session, principal, submission)
        job, created = jobs.submit(session, context.settings, principal.owner_id, submission, key=key)
        return serializers.job(session, job, principal), created

    jobs.prepare(submission.kind)
    return accepted(*context.transact(work))


@router.get("/jobs", response_model=schemas.Jobs, response_model_exclude_unset=True)
def listing(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Reader,
    state: State | None = None,
    kind: Annotated[fields.Name | None, Query()] = None,
    label: Label = None,
    parent: Annotated[fields.JobId | None, Query(description="only the children of this study")] = None,
    owner: Annotated[fields.Name | None, Query(description="only jobs of this owner")] = None,
    top: Annotated[bool, Query(description="only jobs that no study asked for")] = False,
    include: Annotated[list[Heavy] | None, Query(max_length=3, description="what rows carry besides")] = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> schemas.Jobs:
    """Your jobs, newest first; the children of a study in the order of their making. An admin sees everyone's."""
    (after,) = paging.after(cursor, [tables.Job.id]) or [None]
    if kind is not None:
        kind = jobs.find_kind(kind).name
    with context.database.read() as session:
        parent = parent and ids.job(session, principal, parent)
        filters = Filters(state, kind, label, parent, owner, top)
        views, last = job_queries.page(session, principal, filters, after=after, limit=limit, include=include or ())
        items = [serializers.job_row(view, include or ()) for view in views]
    return schemas.Jobs(items=items, next=paging.link_next(request, response, [last] if last else None))


def load(context: Context, principal: Principal, job_id: str) -> tuple[schemas.Job, set[str]]:
    """A job's document, and the ids whose events tell of its changes."""
    with context.database.read() as session:
        row = jobs.get(session, principal, job_id)
        return serializers.job(session, row, principal), {row.id, *filter(None, [row.execution_id])}


@router.get("/jobs/{job_id}", response_model=schemas.Job, responses={304: {"description": "Not modified"}})
async def read(
    job_id: JobPath,
    context: Ctx,
    principal: Reader,
    wait: Annotated[float, Query(ge=0, le=30, description="seconds to wait for a change")] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A job. With `wait`, answers when it is final or no longer the version in `If-None-Match` (or the present one)."""
    known: list[str] = []

    def ready(loaded: tuple[schemas.Job, set[str]]) -> bool:
        known[:] = known or [if_none_match or etag(loaded[0])]
        return loaded[0].state.final or not matches(known[0], etag(loaded[0]))

    read_job = partial(load, context, principal, job_id)
    job, _ = await context.hub.until(read_job, ready, lambda loaded: loaded[1], wait, principal.owner_id)
    return unless_matched(if_none_match, etag(job), lambda: reply(job))


@router.post("/jobs/{job_id}:cancel", status_code=202, response_model=schemas.Job)
def cancel(job_id: JobPath, context: Ctx, principal: Submitter) -> Response:
    """Cancel a job. An execution that other jobs follow goes on for them."""
    with context.write() as session:
        return reply(serializers.job(session, jobs.cancel(session, principal, job_id)), 202)


@router.post("/jobs/{job_id}:retry", status_code=202, response_model=schemas.Job, responses=ACCEPTED)
def retry(job_id: JobPath, context: Ctx, principal: Submitter) -> Response:
    """A new job like one that failed, was cancelled or timed out."""
    with context.database.read() as session:
        earlier = jobs.get(session, principal, job_id)
    submissions.check_scope(principal, earlier.kind, earlier.priority)
    jobs.prepare(earlier.kind)
    with context.write() as session:
        job = jobs.retry(session, context.settings, principal, job_id)
        return accepted(serializers.job(session, job))


@router.post("/jobs/{job_id}:rerun", status_code=202, response_model=schemas.Job)
def rerun(job_id: JobPath, context: Ctx, principal: Submitter) -> Response:
    """Execute a succeeded job again in its recorded environment, without reuse."""
    with context.database.read() as session:
        earlier = jobs.get(session, principal, job_id)
        submissions.check_scope(principal, earlier.kind, earlier.priority)
        manifest = jobs.manifest(session, principal, job_id)
    capability = read_json(context.store, manifest, "manifest.json")["capability"]
    jobs.prepare(earlier.kind)
    with context.write() as session:
        job = jobs.rerun(session, context.settings, principal, job_id, capability)
        return accepted(serializers.job(session, job))
