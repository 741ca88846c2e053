"""Jobs with what belongs to them, read with one query per table and never one per row."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, defer

from services import jobs as job_service
from services.accounts import Principal
from services.queries import progress
from services.states import State
from services.tables import Execution, Job, Output, Owner, Result

LIGHT = (defer(Execution.spec), defer(Execution.environment))
HEAVY = ("spec", "inputs", "outputs")
"""What a list of jobs carries only when it is asked for; results are never in a list."""


@dataclass(frozen=True)
class JobView:
    """A job with what other tables say about it.

    Args:
        owner: the owner's name.
        parent: the job whose study asked for this one.
        reused_from: the job whose result this is, or `execution:ID` where that job is somebody else's.
        rate: units of work per second, while it runs.
    """

    job: Job
    execution: Execution | None
    owner: str
    parent: str | None
    reused_from: str | None
    outputs: Mapping[str, list[str]] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Filters:
    """Which jobs a list holds; None is any.

    Args:
        owner: an owner's name.
        parent: id of the study whose children are listed.
        top: only jobs that no study asked for.
    """

    state: State | None = None
    kind: str | None = None
    label: str | None = None
    parent: str | None = None
    owner: str | None = None
    top: bool = False


def page(
    session: Session,
    principal: Principal,
    filters: Filters,
    *,
    after: str | None = None,
    limit: int = 50,
    include: Collection[str] = (),
) -> tuple[list[JobView], str | None]:
    """A page of jobs, newest first (children of a study oldest first), and the id to go on after.

    Args:
        include: those of `HEAVY` that are read.

    Raises:
        Problem: `unknown-job`: the caller has no such parent.
    """
    query = _matching(session, principal, filters)
    if after is not None:
        query = query.where(Job.id > after if filters.parent else Job.id < after)
    query = query.order_by(Job.id if filters.parent else Job.id.desc())
    left_out = [Job.environment, *([] if "inputs" in include else [Job.inputs])]  # a row's summary reads the spec
    rows = list(session.scalars(query.options(*map(defer, left_out)).limit(limit + 1)))
    shown = views(session, rows[:limit], outputs="outputs" in include, results=False)
    return shown, rows[limit - 1].id if len(rows) > limit else None


def _matching(session: Session, principal: Principal, filters: Filters) -> Select[Job]:
    query = select(Job)
    if not principal.admin:
        query = query.where(Job.owner_id == principal.owner_id)
    if filters.state is not None:
        query = query.where(Job.state == filters.state)
    if filters.kind is not None:
        query = query.where(Job.kind.in_(job_service.names_of(filters.kind)))
    if filters.label is not None:
        query = query.where(cast(Job.labels, Text).contains(json.dumps(filters.label), autoescape=True))
    if filters.owner is not None:
        query = query.where(Job.owner_id.in_(select(Owner.id).where(Owner.name == filters.owner)))
    if filters.top:
        query = query.where(Job.parent_id.is_(None))
    if filters.parent is not None:
        parent = job_service.get(session, principal, filters.parent)
        query = query.where(Job.parent_id == (parent.execution_id or ""))
    return query


def view(session: Session, job: Job, principal: Principal | None = None) -> JobView:
    """One job with everything that belongs to it; `principal` is somebody whose name need not be looked up."""
    return views(session, [job], names={principal.owner_id: principal.owner} if principal else None)[0]


def views(
    session: Session,
    rows: Sequence[Job],
    *,
    outputs: bool = True,
    results: bool = True,
    names: Mapping[str, str] | None = None,
) -> list[JobView]:
    """Jobs with what belongs to them.

    Args:
        outputs: whether outputs are wanted, and `results` results.
        names: owners' names by id, as far as they are known.
    """
    executions = _executions(session, {row.execution_id for row in rows if row.execution_id})
    known = dict(names or {})
    owners = known | owner_names(session, {row.owner_id for row in rows} - known.keys())
    parents = jobs_of(session, {row.parent_id for row in rows if row.parent_id})
    reused = {job.id: job.owner_id for job in _where(session, Job.id, {row.reused_from for row in rows} - {None})}
    ended = {row.execution_id for row in rows if row.state == State.SUCCEEDED}
    artifacts = outputs_of(session, ended) if outputs else {}
    figures = results_of(session, ended) if results else {}
    running = {row.execution_id for row in rows if row.state == State.RUNNING and row.execution_id}
    rates = progress.rates(session, running)
    return [
        JobView(
            job=row,
            execution=executions.get(row.execution_id or ""),
            owner=owners[row.owner_id],
            parent=_same_owner(parents.get(row.parent_id or "", []), row.owner_id),
            reused_from=_first(row, reused),
            outputs=artifacts.get(row.execution_id or "", {}) if row.state == State.SUCCEEDED else {},
            result=figures.get(row.execution_id or "") if row.state == State.SUCCEEDED else None,
            rate=rates.get(row.execution_id or ""),
        )
        for row in rows
    ]


def _first(row: Job, owners: Mapping[str, str]) -> str | None:
    """The job whose result a row is; somebody else's is named by its execution."""
    foreign = owners.get(row.reused_from or "", row.owner_id) != row.owner_id
    return f"execution:{row.execution_id}" if foreign else row.reused_from


def _executions(session: Session, ids: Collection[str]) -> dict[str, Execution]:
    """Executions by id, without their specs and environments, which jobs have too."""
    if not ids:
        return {}
    loaded = {row.id: row for row in session.identity_map.values() if isinstance(row, Execution) and row.id in ids}
    if missing := set(ids) - loaded.keys():
        query = select(Execution).where(Execution.id.in_(missing)).options(*LIGHT)
        loaded |= {row.id: row for row in session.scalars(query)}
    return loaded


def _where(session: Session, column: InstrumentedAttribute[Any], values: Collection[Any]) -> list[Any]:
    """The rows whose `column` is among `values`; asks nothing when there are none."""
    return list(session.scalars(select(column.class_).where(column.in_(values)))) if values else []


def outputs_of(session: Session, execution_ids: Collection[str | None]) -> dict[str, dict[str, list[str]]]:
    """By execution: artifact digests by output name, in their order."""
    outputs: dict[str, dict[str, list[str]]] = defaultdict(dict)
    rows = _where(session, Output.execution_id, execution_ids)
    for row in sorted(rows, key=lambda row: (row.name, row.position)):
        outputs[row.execution_id].setdefault(row.name, []).append(row.sha256)
    return outputs


def results_of(session: Session, execution_ids: Collection[str | None]) -> dict[str, dict[str, Any]]:
    """Results by execution, of those that succeeded."""
    return {row.execution_id: row.result for row in _where(session, Result.execution_id, execution_ids)}


def owner_names(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """Owners' names by id."""
    return {owner.id: owner.name for owner in _where(session, Owner.id, list(ids))}


def children(session: Session, job: Job) -> list[Job]:
    """The jobs that a study asked for, in the order of their making; none where the study is somebody else's."""
    if job.execution_id is None:
        return []
    query = select(Job).where(Job.parent_id == job.execution_id, Job.owner_id == job.owner_id).order_by(Job.id)
    return list(session.scalars(query))


def jobs_of(session: Session, execution_ids: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """(job id, owner id) of every job of each execution: oldest first, then those that were cancelled."""
    attached: dict[str, list[tuple[str, str]]] = defaultdict(list)
    if not execution_ids:
        return attached
    query = select(Job.execution_id, Job.id, Job.owner_id).where(Job.execution_id.in_(execution_ids))
    for execution_id, job_id, owner_id in session.execute(query.order_by(Job.state == State.CANCELLED, Job.id)):
        attached[execution_id or ""].append((job_id, owner_id))
    return attached


def visible(session: Session, principal: Principal, execution_ids: Iterable[str | None]) -> dict[str, str]:
    """One job per execution that the caller may see: the caller's own first, any for an admin."""
    names = {}
    for execution_id, attached in jobs_of(session, {id for id in execution_ids if id}).items():
        job_id = _same_owner(attached, principal.owner_id) or (attached[0][0] if principal.admin else None)
        if job_id:
            names[execution_id] = job_id
    return names


def _same_owner(attached: Sequence[tuple[str, str]], owner_id: str) -> str | None:
    return next((job_id for job_id, owner in attached if owner == owner_id), None)


def child_counts(session: Session, execution_ids: Iterable[str | None]) -> dict[str, dict[str, int]]:
    """By study: how many of its jobs are in each state."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    wanted = [id for id in execution_ids if id]
    if wanted:
        query = select(Job.parent_id, Job.state, func.count()).where(Job.parent_id.in_(wanted))
        for parent, state, count in session.execute(query.group_by(Job.parent_id, Job.state)):
            counts[parent or ""][str(state)] = count
    return counts
