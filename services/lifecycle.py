"""How a job finds its execution, and how the end of one job moves others on.

A job waits until its inputs exist. Then its digest is known, and it takes a stored result, joins an execution that is
under way, or starts one. A study's execution waits for its children, plans more when all of them are done, and is
queued when nothing is left to plan. Every function here runs inside the caller's transaction.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, func, or_, select, text
from sqlalchemy.orm import Session

from husai_core import kinds
from husai_core.identity import sha256
from husai_core.kinds.kind import Child, Done, From, Kind
from services import events, instants, policies
from services.db import OUTBOX_CHANNEL, clock, storable
from services.ids import new_id
from services.states import LIVE, State, check
from services.tables import Attempt, Awaited, Execution, Job, Outbox, Output, Result

log = logging.getLogger("husai.lifecycle")
ATTACHED = select(Job).where(Job.execution_id == bindparam("execution_id"), Job.state.in_(LIVE)).order_by(Job.id)
EQUAL = select(Execution.id, Execution.state).where(Execution.digest == bindparam("digest"))
CHILD_BLOCKED = "child.blocked"
MOST_NAMED = 5
"""Blocked children that a study names, so that what each one adds does not grow with their number."""


class InputFailed(Exception):
    """A job's input will never exist; the message is the reason for a person."""


def enter(session: Session, job: Job) -> None:
    """Add a new job, which waits, with its first event."""
    session.add(job)
    events.append(session, "state", {"state": job.state, "reason": None, "detail": None}, job=job)


def advance(session: Session, job: Job) -> None:
    """Bind a waiting job to an execution if all its inputs exist by now."""
    if job.kind not in {*kinds.names(), *kinds.ALIASES}:
        detail = f"The worker that ended its inputs is of a version without {job.kind}; retry when all are updated."
        transition_job(session, job, State.FAILED, "error.version", detail)
        propagate(session, job)
        return
    try:
        inputs = resolve(session, job)
    except InputFailed as failure:
        transition_job(session, job, State.FAILED, "input.failed", str(failure))
        propagate(session, job)
        return
    if inputs is not None:
        bind(session, job, inputs)


def resolve(session: Session, job: Job) -> dict[str, list[str]] | None:
    """The digests of a job's inputs by port; None while a source is unfinished.

    Raises:
        InputFailed: a source ended without the output.
    """
    inputs: dict[str, list[str]] = {}
    for port, references in job.inputs.items():
        inputs[port] = []
        for reference in references:
            if isinstance(reference, str):
                inputs[port].append(reference)
                continue
            digests = _from_job(session, job, port, reference)
            if digests is None:
                return None
            inputs[port] += digests
        check_count(kinds.get(job.kind), port, len(inputs[port]))
    return inputs


def check_count(kind: Kind, name: str, count: int) -> None:
    """Refuse too few or too many artifacts for a port.

    Raises:
        InputFailed: with what the port takes.
    """
    port = kind.inputs[name]
    most = count if port.many else 1
    if count and not port.at_least <= count <= most:
        takes = f"at least {port.at_least} artifacts" if port.many else "one artifact (an index names it)"
        raise InputFailed(f"input {name!r} of {kind.name} takes {takes}, not {count}")


def _from_job(session: Session, job: Job, port: str, reference: Mapping[str, Any]) -> list[str] | None:
    source = session.get_one(Job, reference["job"])
    label = source.name or source.id
    if not source.state.final:
        session.flush()  # the row names both jobs
        session.merge(Awaited(job_id=job.id, source_id=source.id))
        return None
    if source.state != State.SUCCEEDED:
        raise InputFailed(f"input {port!r} comes from {label}, which {source.state}")
    digests = outputs(session, source).get(reference["output"], [])
    index = reference.get("index")
    chosen = digests if index is None else digests[index : index + 1]
    if not chosen:
        raise InputFailed(f"{label} has no output {reference['output']!r}" + ("" if index is None else f"[{index}]"))
    return chosen


def outputs(session: Session, job: Job) -> dict[str, list[str]]:
    """The artifacts of a job by output name."""
    digests: dict[str, list[str]] = {}
    rows = session.scalars(
        select(Output).where(Output.execution_id == job.execution_id).order_by(Output.name, Output.position)
    )
    for row in rows:
        digests.setdefault(row.name, []).append(row.sha256)
    return digests


def bind(session: Session, job: Job, inputs: dict[str, list[str]]) -> None:
    """Give a job its execution: a finished equal one, an active equal one, or a new one."""
    kind, name = kinds.get(job.kind), digest(job, inputs)
    execution = _equal(session, name, job) if job.reuse else None
    if execution is not None:
        attach(session, job, execution)
        return
    execution = Execution(
        id=new_id("execution"), digest=name, kind=job.kind, queue=kind.queue, spec=job.spec, inputs=inputs,
        device=job.device, environment=job.environment, owner_id=job.owner_id, priority=job.priority,
        shared=job.reuse, state=State.WAITING if kind.is_study else State.QUEUED, created_at=clock(session),
    )  # fmt: skip
    session.add(execution)
    attach(session, job, execution)
    if kind.is_study:
        replan(session, execution)
    else:
        notify(session, execution)


def digest(job: Job, inputs: dict[str, list[str]]) -> str:
    """The identity of a job's computation by the code that is installed here; a private one is its owner's alone."""
    name = kinds.job_digest(job.kind, job.spec, inputs, job.device)
    return sha256(f"{name} {job.owner_id}".encode()) if job.private else name


def _equal(session: Session, digest: str, job: Job) -> Execution | None:
    """An execution of this digest that the job may share: a stored result first, else one under way."""
    with session.no_autoflush:  # what is still to be written has no execution that could be found here
        equal = session.execute(EQUAL, {"digest": digest}).all()
    done = sorted(id for id, state in equal if state == State.SUCCEEDED)
    if done:
        return session.get_one(Execution, done[0])
    if not any(state in LIVE for _, state in equal):
        return None
    active = select(Execution).where(Execution.digest == digest, Execution.shared, Execution.state.in_(LIVE))
    return session.scalar(active.limit(1).with_for_update())


def attach(session: Session, job: Job, execution: Execution) -> None:
    """Let a job follow an execution from its present state on."""
    job.execution_id, job.execution = execution.id, execution
    execution.priority = min(execution.priority, job.priority)
    if execution.state == State.SUCCEEDED:
        others = select(Job.id).where(Job.execution_id == execution.id, Job.state == State.SUCCEEDED, Job.id != job.id)
        job.reused_from = session.scalar(others.order_by(Job.owner_id != job.owner_id, Job.id).limit(1))
    if execution.state != job.state:
        transition_job(session, job, execution.state, execution.reason, execution.detail)
    if job.state == State.BLOCKED:
        tell_parents(session, [job])
    if job.state.final:
        propagate(session, job)


def notify(session: Session, execution: Execution) -> None:
    """Ask for a wake-up message to the workers; the relay learns of it with the commit and sends it."""
    session.add(Outbox(queue=execution.queue, execution_id=execution.id))
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"NOTIFY {OUTBOX_CHANNEL}"))


def transition_job(
    session: Session, job: Job, state: State, reason: str | None = None, detail: str | None = None
) -> None:
    """Change a job's state by the table of allowed moves, with its event."""
    check(job.state, state)
    job.state, job.reason, job.detail = state, reason, detail
    job.version += 1
    if state.final:
        job.finished_at = clock(session)
    events.append(session, "state", {"state": state, "reason": reason, "detail": detail}, job=job)


def transition(
    session: Session,
    execution: Execution,
    state: State,
    reason: str | None = None,
    detail: str | None = None,
    *,
    jobs: Sequence[Job] | None = None,
) -> None:
    """Change an execution's state and that of every job attached to it; an end moves on who waits for them.

    `jobs` are the attached ones, where they are known already.
    """
    check(execution.state, state)
    concerns_parents = State.BLOCKED in (execution.state, state)
    detail = storable(detail) if detail else detail
    execution.state, execution.reason, execution.detail = state, reason, detail
    execution.version += 1
    if state != State.RUNNING:
        execution.lease_until = None
    if state.final:
        execution.finished_at = clock(session)
    jobs = attached(session, execution) if jobs is None else jobs
    for job in jobs:
        transition_job(session, job, state, reason, detail)
    if concerns_parents:
        tell_parents(session, list(session.scalars(select(Job).where(Job.execution_id == execution.id))))
    if state.final:
        for job in jobs:
            propagate(session, job)


def tell_parents(session: Session, jobs: Sequence[Job]) -> None:
    """Let the studies that wait for some jobs say which of their children are blocked, and the studies above them."""
    session.flush()
    for parent_id in sorted({job.parent_id for job in jobs if job.parent_id}):
        parent = session.get_one(Execution, parent_id, with_for_update=True)
        reason, detail = _blocked_children(session, parent_id)
        if parent.state != State.WAITING or (parent.reason, parent.detail) == (reason, detail):
            continue
        parent.reason, parent.detail = reason, detail
        parent.version += 1
        followers = attached(session, parent)
        for job in followers:
            job.reason, job.detail = reason, detail
            job.version += 1
            events.append(session, "child", {"reason": reason, "detail": detail}, job=job)
        tell_parents(session, followers)


def _blocked_children(session: Session, parent_id: str) -> tuple[str | None, str | None]:
    """Reason and detail of a study that waits for blocked children; nothing where none is blocked."""
    waits = or_(Job.state == State.BLOCKED, (Job.state == State.WAITING) & (Job.reason == CHILD_BLOCKED))
    blocked = select(Job).where(Job.parent_id == parent_id, waits)
    count = session.scalar(blocked.with_only_columns(func.count())) or 0
    if not count:
        return None, None
    names: dict[str | None, list[str]] = {}
    for child in session.scalars(blocked.order_by(Job.id).limit(MOST_NAMED)):
        names.setdefault(child.detail, []).append(str(child.name))
    lines = [f"{', '.join(of)} {'are' if of[1:] else 'is'} blocked: {detail}" for detail, of in names.items()]
    return CHILD_BLOCKED, "; ".join(lines + [f"and {count - MOST_NAMED} more"] * (count > MOST_NAMED))


def attached(session: Session, execution: Execution) -> list[Job]:
    """The unfinished jobs that follow an execution, oldest first."""
    return list(session.scalars(ATTACHED, {"execution_id": execution.id}))


def propagate(session: Session, job: Job) -> None:
    """Move on what waited for a job that has just ended: jobs that take its outputs, and its study.

    An end can bring about others, in chains of any length, so they are worked off one after another by the first call.
    """
    ended: deque[Job] | None = session.info.get("ended")
    if ended is not None:
        ended.append(job)
        return
    session.info["ended"] = ended = deque([job])
    try:
        while ended:
            _move_on(session, ended.popleft())
    finally:
        del session.info["ended"]


def _move_on(session: Session, job: Job) -> None:
    session.flush()
    waiting = list(session.scalars(select(Awaited).where(Awaited.source_id == job.id).order_by(Awaited.job_id)))
    for row in waiting:
        session.delete(row)
    session.flush()
    for row in waiting:
        consumer = session.get_one(Job, row.job_id)
        if consumer.state == State.WAITING and consumer.execution_id is None:
            advance(session, consumer)
    if job.parent_id is not None:
        replan(session, session.get_one(Execution, job.parent_id, with_for_update=True))


def replan(session: Session, execution: Execution) -> None:
    """When all children of a waiting study are done: submit what it plans next, or queue it for its summary."""
    session.flush()
    if execution.state != State.WAITING:
        return
    children = {job.name: job for job in session.scalars(select(Job).where(Job.parent_id == execution.id))}
    if any(not job.state.final for job in children.values()):
        return
    done = {str(name): outcome(session, job) for name, job in children.items()}
    try:
        fresh = [child for child in _plan(session, execution, done) if child.name not in children]
    except Exception as error:
        log.exception("the plan of %s failed", execution.id)
        detail = f"Its plan failed: {type(error).__name__}: {error}".splitlines()[0]
        transition(session, execution, State.FAILED, "error.plan", detail)
        return
    if not fresh:
        transition(session, execution, State.QUEUED)
        notify(session, execution)
        return
    jobs = add_children(session, execution, fresh, children)
    for job in jobs:
        if job.state == State.WAITING and job.execution_id is None:
            advance(session, job)


def _plan(session: Session, execution: Execution, done: Mapping[str, Done]) -> list[Child]:
    """What a study wants next, with every child's spec in full."""
    kind, present = kinds.get(execution.kind), clock(session)
    planned = kind.next_children(kind.spec.model_validate(execution.spec), execution.inputs, done)
    return [replace(child, spec=_full_spec(session, child, present)) for child in planned]


def _full_spec(session: Session, child: Child, present: float) -> dict[str, Any]:
    kind = kinds.get(child.kind)
    spec = kind.spec.model_validate(child.spec)
    instants.check(kind, spec, present)
    policies.check(session, kind, spec)
    return spec.model_dump(mode="json")


def outcome(session: Session, job: Job) -> Done:
    """How a study sees one of its children."""
    if job.state != State.SUCCEEDED:
        return Done(job.state, job.detail or job.reason)
    result = session.get_one(Result, job.execution_id)
    return Done(job.state, None, result.result, outputs(session, job))


def add_children(
    session: Session, parent: Execution, planned: list[Child], existing: Mapping[str | None, Job]
) -> list[Job]:
    """Insert the planned children as waiting jobs of the study's owner."""
    lead = session.scalars(select(Job).where(Job.execution_id == parent.id).order_by(Job.id).limit(1)).one()
    ids = {name: job.id for name, job in existing.items()} | {child.name: new_id("job") for child in planned}
    jobs = []
    for child in planned:
        inputs = {port: [_reference(ids, source) for source in sources] for port, sources in child.inputs.items()}
        job = Job(
            id=ids[child.name], owner_id=parent.owner_id, kind=child.kind, spec=dict(child.spec), labels=[],
            inputs=inputs, device=parent.device, environment=parent.environment, priority=parent.priority,
            reuse=lead.reuse, private=lead.private, state=State.WAITING, version=1, parent_id=parent.id,
            name=child.name, created_at=clock(session),
        )  # fmt: skip
        enter(session, job)
        jobs.append(job)
    session.flush()
    return jobs


def _reference(ids: Mapping[str | None, str], reference: str | From) -> str | dict[str, Any]:
    if isinstance(reference, str):
        return reference
    return {"job": ids[reference.child], "output": reference.output, "index": reference.index}


def cancel_if_orphaned(session: Session, execution: Execution, reason: str) -> None:
    """Stop an execution that no job follows any more; one that runs is stopped by its supervisor."""
    session.flush()
    if execution.state.final or attached(session, execution):
        return
    execution.shared = False
    if execution.state == State.RUNNING:
        execution.cancel_requested = True
        return
    transition(session, execution, State.CANCELLED, reason)
    children = select(Job).where(Job.parent_id == execution.id, Job.state.in_(LIVE)).order_by(Job.id)
    cancel(session, list(session.scalars(children)), "cancelled.parent")


def cancel(session: Session, jobs: list[Job], reason: str) -> None:
    """Cancel jobs; an execution goes on for the others that follow it."""
    for job in jobs:
        transition_job(session, job, State.CANCELLED, reason)
    for job in jobs:
        if job.execution_id is not None:
            cancel_if_orphaned(session, session.get_one(Execution, job.execution_id, with_for_update=True), reason)
    for job in jobs:
        propagate(session, job)


def end_attempt(session: Session, execution: Execution, outcome: str) -> None:
    """Close the attempt row of the running attempt."""
    attempt = session.get_one(Attempt, (execution.id, execution.attempt))
    attempt.ended_at, attempt.outcome = clock(session), outcome
