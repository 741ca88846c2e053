"""Rows as documents. Lists are loaded with one query per table, never one per row."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, overload

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from api import schemas
from husai_core.kinds.kind import QUEUES
from services import jobs as job_service
from services import tables
from services.accounts import Principal
from services.states import State

Produced = tuple[dict[str, list[str]], dict[str, Any] | None]
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


def job(session: Session, row: tables.Job) -> schemas.Job:
    """One job's document."""
    return jobs(session, [row])[0]


def jobs(session: Session, rows: Sequence[tables.Job]) -> list[schemas.Job]:
    """The documents of many jobs."""
    ids = {row.execution_id for row in rows if row.execution_id}
    executions = {one.id: one for one in _where(session, tables.Execution.id, ids)}
    owners = owner_names(session, {row.owner_id for row in rows})
    parents = jobs_of(session, {row.parent_id for row in rows if row.parent_id})
    reused = {one.id: one.owner_id for one in _where(session, tables.Job.id, {r.reused_from for r in rows} - {None})}
    produced = _produced(session, {row.execution_id for row in rows if row.state == State.SUCCEEDED})
    made = []
    for row in rows:
        parent = _same_owner(parents.get(row.parent_id or "", []), row.owner_id)
        outputs, result = produced.get(row.execution_id or "", ({}, None))
        execution = executions.get(row.execution_id or "")
        foreign = reused.get(row.reused_from or "", row.owner_id) != row.owner_id
        first = f"execution:{row.execution_id}" if foreign else row.reused_from
        made.append(_job(row, execution, owners[row.owner_id], parent, first, outputs, result))
    return made


def _where(session: Session, column: InstrumentedAttribute[Any], values: Collection[Any]) -> list[Any]:
    """The rows whose `column` is among `values`; asks nothing when there are none."""
    return list(session.scalars(select(column.class_).where(column.in_(values)))) if values else []


def _produced(session: Session, ids: Collection[str | None]) -> dict[str, Produced]:
    """Outputs and result of each succeeded execution."""
    found: dict[str, Produced] = {}
    for one in _where(session, tables.Result.execution_id, ids):
        found[one.execution_id] = ({}, one.result)
    for one in sorted(_where(session, tables.Output.execution_id, ids), key=lambda one: (one.name, one.position)):
        found[one.execution_id][0].setdefault(one.name, []).append(one.sha256)
    return found


def _job(
    row: tables.Job,
    execution: tables.Execution | None,
    owner: str,
    parent: str | None,
    reused_from: str | None,
    outputs: dict[str, list[str]],
    result: dict[str, Any] | None,
) -> schemas.Job:
    progress = execution.progress if execution else None
    return schemas.Job(
        id=row.id, kind=row.kind, state=row.state, reason=row.reason, detail=row.detail, spec=row.spec,
        inputs=row.inputs, labels=row.labels, priority=PRIORITY_NAMES[row.priority], device=row.device, owner=owner,
        parent=parent, name=row.name, retry_of=row.retry_of, reuse="allow" if row.reuse else "never",
        reused_from=reused_from, digest=execution.digest if execution else None,
        attempt=execution.attempt if execution else 0,
        progress=schemas.Progress(**progress) if progress else None, queue=QUEUES[row.kind.split(".")[0]],
        environment=row.environment, created_at=rfc3339(row.created_at),
        started_at=rfc3339(execution.started_at if execution else None), finished_at=rfc3339(row.finished_at),
        outputs=outputs, result=result, version=row.version + (execution.version if execution else 0),
    )  # fmt: skip


def owner_names(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """Owners' names by id."""
    return {owner.id: owner.name for owner in _where(session, tables.Owner.id, list(ids))}


def jobs_of(session: Session, execution_ids: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """(job id, owner id) of every job of each execution: oldest first, then those that were cancelled."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    if not execution_ids:
        return found
    row = tables.Job
    query = select(row.execution_id, row.id, row.owner_id).where(row.execution_id.in_(execution_ids))
    query = query.order_by(row.state == State.CANCELLED, row.id)
    for execution_id, job_id, owner_id in session.execute(query):
        found[execution_id or ""].append((job_id, owner_id))
    return found


def visible_jobs(session: Session, principal: Principal, execution_ids: Iterable[str | None]) -> dict[str, str]:
    """One job per execution that the caller may see: the caller's own first, any for an admin."""
    found = {}
    for execution_id, attached in jobs_of(session, {id for id in execution_ids if id}).items():
        job_id = _same_owner(attached, principal.owner_id) or (attached[0][0] if principal.admin else None)
        if job_id:
            found[execution_id] = job_id
    return found


def _same_owner(attached: Sequence[tuple[str, str]], owner_id: str) -> str | None:
    return next((job_id for job_id, owner in attached if owner == owner_id), None)


def event(row: tables.Event) -> schemas.Event:
    """One event's document."""
    return schemas.Event(id=row.id, at=rfc3339(row.at), type=row.type, data=row.data)


def key(row: tables.ApiKey, owner: str) -> schemas.Key:
    """A key's document, which holds no secret."""
    return schemas.Key(
        id=row.id, name=row.name, owner=owner, prefix=row.prefix, scopes=row.scopes,
        created_at=rfc3339(row.created_at), expires_at=rfc3339(row.expires_at), revoked_at=rfc3339(row.revoked_at),
    )  # fmt: skip
