"""The jobs, newest first, and one job with all that there is to see of it."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query, Request, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from api import paging, provenance, schemas, serializers
from api.deps import Context, Ctx
from api.pages import live
from api.pages.paths import JobPath
from api.pages.shell import Seen, Sent, Visitor, back_to, pages_router, render
from api.routes import jobs as v1
from husai_core.kinds import ALIASES, names
from husai_core.render import html
from services import accounts, events, jobs, tables
from services.queries import jobs as job_queries
from services.queries import lineage
from services.queries import panels as panel_queries
from services.queries.jobs import Filters
from services.queries.lineage import Lineage
from services.queries.panels import JobPanels
from services.states import State

router = pages_router()
ROWS = 40
POINTS = 3000
LOG_LINES = 200
EVENTS = ["state", "attempt", "progress", "metrics", "log", "checkpoint"]
Text = Annotated[str, Query(max_length=64)]


@router.get("/")
def home(visitor: Seen) -> Response:
    """The jobs are where one begins."""
    return back_to("/jobs")


@router.get("/jobs")
def listing(
    request: Request,
    context: Ctx,
    visitor: Seen,
    state: Text = "",
    kind: Text = "",
    owner: Text = "",
    label: Text = "",
    children: bool = False,
    cursor: paging.Cursor = None,
) -> Response:
    """The visitor's jobs with filters; an admin sees everyone's. The jobs of a study are folded into it."""
    accounts.require(visitor.principal, "read")
    filters = Filters(
        State(state) if state in list(State) else None,
        kind if kind in {*names(), *ALIASES} else None,
        label or None,
        owner=owner or None,
        top=not children,
    )
    (after,) = paging.after(cursor, [tables.Job.id]) or [None]
    with context.database.read() as session:
        views, last = job_queries.page(session, visitor.principal, filters, after=after, limit=ROWS)
        counts = job_queries.child_counts(session, [view.job.execution_id for view in views])
    rows = [(serializers.job_row(view), counts.get(view.job.execution_id or "", {})) for view in views]
    return render(
        request,
        "jobs.html",
        title="Jobs",
        twin=f"/v1/jobs?{_twin_query(filters)}",
        rows=rows,
        following=paging.encode(last) if last else None,
        filters=filters,
        children=children,
        states=list(State),
        kinds=names(),
        live=any(not row.state.final for row, _ in rows),
    )


def _twin_query(filters: Filters) -> str:
    values = {name: value for name, value in vars(filters).items() if value}
    return "&".join(f"{name}={'true' if value is True else value}" for name, value in values.items())


@dataclass(frozen=True)
class Shown:
    """All that the page of a job shows."""

    job: schemas.Job
    panels: JobPanels
    family: dict[str, schemas.JobRow]
    steps: list[live.Step]
    curves: Markup
    log: str
    last_event: int
    lineage: Lineage
    digests: Markup
    environment: Markup


def load(context: Context, session: Session, visitor: Visitor, job_id: str) -> Shown:
    """Read what there is to see of a job.

    Raises:
        Problem: `unknown-job`.
    """
    row = jobs.get(session, visitor.principal, job_id)
    view = job_queries.view(session, row)
    children = job_queries.views(session, job_queries.children(session, row), outputs=False, results=False)
    points = [] if row.state == State.SUCCEEDED else events.latest(session, row, POINTS, ["metrics"])
    progress = view.execution.progress if view.execution else None
    unit = str(progress["unit"]).rpartition(" ")[2] if progress else "step"  # rows, also while it counts test rows
    manifests = {"job": provenance.manifest_of(context.store, view.outputs)}
    environment = provenance.environment(manifests)
    return Shown(
        job=serializers.job(session, row),
        panels=panel_queries.of_job(session, row),
        family={child.job.id: serializers.job_row(child) for child in children},
        steps=live.timeline(events.latest(session, row, 100, ["state"])),
        curves=html.fragment(live.curves(points, unit)) if points else Markup(""),
        log=live.log_text(events.latest(session, row, LOG_LINES, ["log"])),
        last_event=max((event.id for event in events.latest(session, row, 1, EVENTS)), default=0),
        lineage=lineage.of_job(session, visitor.principal, row),
        digests=html.fragment([provenance.digests({"job": view})]),
        environment=html.table(environment) if environment.rows else Markup(""),
    )


@router.get("/jobs/{job_id}")
def show(request: Request, job_id: JobPath, context: Ctx, visitor: Seen) -> Response:
    """A job: where it stands, what came of it, where it came from, how to repeat it."""
    accounts.require(visitor.principal, "read")
    with context.database.read() as session:
        shown = load(context, session, visitor, job_id)
    job = shown.job
    return render(
        request,
        "job.html",
        title=job.name or job.kind,
        twin=f"/v1/jobs/{job.id}",
        shown=shown,
        job=job,
        sources=_neighbours(shown.lineage, job.id, inward=True),
        products=_neighbours(shown.lineage, job.id, inward=False),
        commands=provenance.commands(job.id, job.state),
        fragment=html.fragment,
    )


def _neighbours(graph: Lineage, job_id: str, *, inward: bool) -> list[dict[str, Any]]:
    """Artifacts that a job read or wrote, each with the job at its other side."""
    nodes = {node.id: node for node in graph.nodes}
    rows = []
    for start, end, role in graph.edges:
        artifact, mine = (start, end) if inward else (end, start)
        if mine == job_id and nodes[artifact].type == "artifact":
            other = [nodes[a] for a, b, _ in graph.edges if b == artifact] if inward else []
            rows.append({"port": role, "artifact": nodes[artifact], "job": other[0] if other else None})
    return rows


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: JobPath, context: Ctx, form: Sent) -> Response:
    """Cancel a job."""
    accounts.require(form.visitor.principal, "submit")
    v1.cancel(job_id, context, form.visitor.principal)
    return back_to(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/retry")
def retry(job_id: JobPath, context: Ctx, form: Sent) -> Response:
    """Submit a job again that did not succeed."""
    accounts.require(form.visitor.principal, "submit")
    answer = v1.retry(job_id, context, form.visitor.principal)
    return back_to(answer.headers["Location"].removeprefix("/v1"))
