"""Rows as documents."""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, overload

from sqlalchemy.orm import Session

from api import kinds, operations, schemas
from husai_core.kinds.kind import QUEUES
from services import jobs as job_service
from services import tables
from services.accounts import Principal
from services.policies import Entry
from services.queries import jobs as job_queries
from services.queries.jobs import JobView
from services.queries.lineage import Lineage
from services.queries.panels import JobPanels
from services.states import State

PRIORITY_NAMES: dict[int, Any] = {value: name for name, value in job_service.PRIORITIES.items()}


@overload
def rfc3339(seconds: float) -> str: ...
@overload
def rfc3339(seconds: None) -> None: ...
def rfc3339(seconds: float | None) -> str | None:
    """Unix seconds as RFC 3339 in UTC with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job(session: Session, row: tables.Job, principal: Principal | None = None) -> schemas.Job:
    """One job's document; `principal` is somebody whose name need not be looked up."""
    view = job_queries.view(session, row, principal)
    return schemas.Job(
        **_common(view), spec=row.spec, inputs=row.inputs, reuse="allow" if row.reuse else "never",
        digest=view.execution.digest if view.execution else None, environment=row.environment,
        outputs=view.outputs, result=view.result,
    )  # fmt: skip


def job_row(view: JobView, include: Collection[str] = ()) -> schemas.JobRow:
    """A job's document in a list, with those of its heavy fields that were asked for."""
    heavy: dict[str, Callable[[], Any]] = {
        "spec": lambda: view.job.spec, "inputs": lambda: view.job.inputs, "outputs": lambda: view.outputs
    }  # fmt: skip
    return schemas.JobRow(**_common(view), **{name: read() for name, read in heavy.items() if name in include})


def _common(view: JobView) -> dict[str, Any]:
    """What a job's document says in a list, too."""
    row, execution = view.job, view.execution
    return {
        "id": row.id, "kind": row.kind, "state": row.state, "reason": row.reason, "detail": row.detail,
        "summary": kinds.summary(row.kind, row.spec),
        "labels": row.labels, "priority": PRIORITY_NAMES[row.priority], "device": row.device, "owner": view.owner,
        "parent": view.parent, "name": row.name, "retry_of": row.retry_of, "reused_from": view.reused_from,
        "attempt": execution.attempt if execution else 0, "queue": QUEUES[row.kind.split(".")[0]],
        "progress": _progress(view), "assets": execution.assets if execution and row.state == State.BLOCKED else None,
        "created_at": rfc3339(row.created_at), "started_at": rfc3339(_started(view)),
        "finished_at": rfc3339(row.finished_at), "version": row.version + (execution.version if execution else 0),
    }  # fmt: skip


def _started(view: JobView) -> float | None:
    """When the work began for this job: never before it was made, and not at all for a stored result."""
    started = view.execution.started_at if view.execution and not view.reused_from else None
    return None if started is None else max(started, view.job.created_at)


def _progress(view: JobView) -> schemas.Progress | None:
    """Work done so far, with its speed and the time that is left while it goes on."""
    report = view.execution.progress if view.execution else None
    if not report:
        return None
    left = (report["total"] - report["done"]) / view.rate if view.rate else None
    return schemas.Progress(**report, rate=view.rate, seconds_left=left)


def panels(shown: JobPanels) -> schemas.JobPanels:
    """What there is to see of a job and of its children."""
    children = [
        schemas.ChildPanels(job=child.job, name=child.name, kind=child.kind, state=child.state, panels=child.panels)
        for child in shown.children
    ]
    return schemas.JobPanels(
        job=shown.job, kind=shown.kind, title=shown.title, state=shown.state, panels=shown.panels, children=children
    )


def lineage(graph: Lineage) -> schemas.Lineage:
    """A graph of jobs and artifacts."""
    return schemas.Lineage(nodes=[schemas.Node(**vars(node)) for node in graph.nodes], edges=graph.edges)


def policy(entry: Entry) -> schemas.Policy:
    """A policy's document."""
    return schemas.Policy(
        **entry.policy.model_dump(mode="json"), digest=entry.policy.digest, packaged=entry.packaged,
        added_at=rfc3339(entry.added_at), retired_at=rfc3339(entry.retired_at),
    )  # fmt: skip


def candidate(row: tables.Candidate, jobs: Mapping[str, str]) -> schemas.Candidate:
    """A candidate's document; `jobs` are those that the caller may see, by execution."""
    return schemas.Candidate(
        sha256=row.sha256, siblings=row.siblings, job=jobs.get(row.execution_id), facts=row.facts,
        public_badge=row.public_badge, created_at=rfc3339(row.created_at),
    )  # fmt: skip


def event(row: tables.Event) -> schemas.Event:
    """One event's document."""
    return schemas.Event(id=row.id, at=rfc3339(row.at), type=row.type, data=row.data)


def key(row: tables.ApiKey, owner: str, browsers: int = 0) -> operations.Key:
    """A key's document, which holds no secret; `browsers` are signed in with it."""
    return operations.Key(
        id=row.id, name=row.name, owner=owner, prefix=row.prefix, scopes=row.scopes,
        created_at=rfc3339(row.created_at), expires_at=rfc3339(row.expires_at), revoked_at=rfc3339(row.revoked_at),
        browsers=0 if row.revoked_at is not None else browsers,
    )  # fmt: skip
