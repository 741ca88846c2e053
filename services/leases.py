"""How a worker holds an execution: claim, renew, report, finish, hand back; and how a lost one is taken from it.

The attempt number is the fence: every write names it, and one that comes from an older attempt changes nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import and_, false, func, or_, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services import decisions, events, evidence, lifecycle, queue
from services.artifacts import Store, Stored, read_files, read_json, register
from services.db import clock, now
from services.failpoints import failpoint
from services.states import LIVE, State
from services.tables import Attempt, Candidate, Counter, Execution, Job, Output, Result

log = logging.getLogger("husai.leases")
MISSING, HOST = "asset.missing", "host.storage"
SHAPE = ("architecture", "d_in", "d_sae", "k")
"""What siblings have in common beside their training."""
MOST_HOST_FAULTS = 20
"""Attempts that faults of hosts may end before an execution fails, so that none is tried for ever."""
Holding = Literal["held", "cancel", "lost"]


@dataclass(frozen=True)
class Claim:
    """One attempt that this worker now holds."""

    execution_id: str
    attempt: int
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, list[str]]
    device: str
    environment: dict[str, Any]
    owner_id: str
    job_id: str
    resume: str | None


def claim(
    session: Session, worker_id: str, boot_id: str, queues: Sequence[str], devices: Sequence[str], lease: float
) -> Claim | None:
    """Take the next execution of these queues: by priority, then between owners in turn, then by age."""
    execution = queue.lock_next(session, queues, devices)
    if execution is None:
        return None
    queue.serve(session, execution.owner_id)
    jobs = lifecycle.attached(session, execution)
    _rename(session, execution, jobs[0])
    execution.attempt += 1
    execution.worker_id, execution.boot_id = worker_id, boot_id
    start = clock(session)
    execution.lease_until = start + lease
    if execution.started_at is None:
        execution.started_at = start
    lifecycle.transition(session, execution, State.RUNNING, jobs=jobs)
    session.add(Attempt(execution_id=execution.id, number=execution.attempt, worker_id=worker_id, started_at=start))
    events.append(session, "attempt", {"number": execution.attempt, "worker": worker_id}, execution_id=execution.id)
    return Claim(
        execution.id, execution.attempt, execution.kind, execution.spec, execution.inputs, execution.device,
        execution.environment, execution.owner_id, jobs[0].id, execution.resume,
    )  # fmt: skip


def _rename(session: Session, execution: Execution, lead: Job) -> None:
    """Give an execution the digest of the code that will run it, which may be another version than accepted it."""
    digest = lifecycle.digest(lead, execution.inputs)
    if digest == execution.digest:
        return
    twin = select(Execution.id).where(Execution.digest == digest, Execution.shared, Execution.state.in_(LIVE))
    execution.shared = execution.shared and session.scalar(twin.limit(1)) is None
    execution.digest = digest


def renew(session: Session, execution_id: str, attempt: int, lease: float) -> Holding:
    """Prolong the lease; the answer brings a cancellation or the loss of the attempt."""
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return "lost"
    execution.lease_until = clock(session) + lease
    return "cancel" if execution.cancel_requested else "held"


def peek(session: Session, execution_id: str, attempt: int) -> Holding:
    """Whether the attempt is still held, without a write."""
    query = select(Execution.attempt, Execution.state, Execution.cancel_requested).where(Execution.id == execution_id)
    number, state, cancelled = session.execute(query).one()
    if number != attempt or state != State.RUNNING:
        return "lost"
    return "cancel" if cancelled else "held"


def report(
    session: Session,
    execution_id: str,
    attempt: int,
    progress: dict[str, Any] | None,
    news: Sequence[tuple[str, dict[str, Any]]],
) -> Holding:
    """Record progress and events of a running attempt."""
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return "lost"
    if progress is not None:
        execution.progress = progress
        execution.version += 1
        events.append(session, "progress", progress, execution_id=execution_id)
    for type, data in news:
        events.append(session, type, data, execution_id=execution_id)
    return "cancel" if execution.cancel_requested else "held"


def checkpointed(session: Session, execution_id: str, attempt: int, checkpoint: Stored) -> Holding:
    """Record a resumable checkpoint, which a later attempt starts from."""
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return "lost"
    register(session, checkpoint, execution.owner_id, execution_id)
    execution.resume = checkpoint.sha256
    events.append(session, "checkpoint", {"sha256": checkpoint.sha256}, execution_id=execution_id)
    session.flush()
    failpoint("checkpoint.before_commit")
    return "held"


@dataclass(frozen=True)
class Success:
    """What a finished attempt made: its result, its artifacts by output name, the facts about each SAE among them by
    digest, the files of its decision, if there is one, and the estimate of its work, where its kind makes one."""

    result: dict[str, Any]
    outputs: dict[str, list[Stored]]
    facts: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, bytes] = field(default_factory=dict)
    work: dict[str, Any] | None = None


def success(
    store: Store, result: dict[str, Any], outputs: dict[str, list[Stored]], work: dict[str, Any] | None = None
) -> Success:
    """A finished attempt with what its recording needs of the store, which no transaction may wait for."""
    artifacts = [artifact for port in outputs.values() for artifact in port]
    facts = {sae.sha256: read_json(store, sae.sha256, "cfg.json") for sae in artifacts if sae.type == "sae"}
    decisions = [artifact.sha256 for artifact in outputs.get("decision", [])]
    return Success(result, outputs, facts, read_files(store, decisions[0]) if decisions else {}, work)


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended without a result. `state` is failed, cancelled or timed_out."""

    state: State
    reason: str
    detail: str


def finish(
    session: Session,
    execution_id: str,
    attempt: int,
    signer: "decisions.Signer | None",
    end: Success | Failure,
) -> bool:
    """End an execution, once, with all that follows from it; False when the attempt is no longer held.

    An attempt that has ended in this way already, since the answer was lost, is not ended again.
    """
    outcome = "succeeded" if isinstance(end, Success) else end.reason
    if session.scalar(select(Attempt.outcome).filter_by(execution_id=execution_id, number=attempt)) == outcome:
        return True
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return False
    lifecycle.end_attempt(session, execution, outcome)
    if isinstance(end, Failure):
        lifecycle.transition(session, execution, end.state, end.reason, end.detail)
    else:
        _record(session, execution, end)
        decisions.record(session, signer, execution, end.decision)
        lifecycle.transition(session, execution, State.SUCCEEDED)
    session.flush()
    failpoint("finish.before_commit")
    return True


def _record(session: Session, execution: Execution, end: Success) -> None:
    execution.work = end.work
    session.add(Result(execution_id=execution.id, result=end.result))
    evidence.enter(session, execution.id, end.result)
    for name, stored in end.outputs.items():
        for position, artifact in enumerate(stored):
            register(session, artifact, execution.owner_id, execution.id)
            session.add(Output(execution_id=execution.id, name=name, position=position, sha256=artifact.sha256))
    session.flush()
    saes = [artifact.sha256 for port in end.outputs.values() for artifact in port if artifact.type == "sae"]
    for sha256 in saes:
        facts, training = end.facts[sha256], _training(end.facts[sha256])
        siblings = [other for other in saes if other != sha256 and _training(end.facts[other]) == training]
        candidate = session.get(Candidate, sha256)
        if candidate is None:
            session.add(
                Candidate(
                    sha256=sha256, execution_id=execution.id, siblings=siblings, facts=facts, created_at=clock(session)
                )
            )
        elif session.get_one(Execution, candidate.execution_id).owner_id == execution.owner_id:
            # An import of one seed may come before that of all together.
            candidate.siblings = list(dict.fromkeys([*candidate.siblings, *siblings]))


def _training(facts: Mapping[str, Any]) -> list[Any]:
    """What the siblings of an SAE have in common: the recipe that it was trained with, or what an imported one claims.

    SAEs of one bank with other recipes are no siblings, nor are imported ones of another shape, place or step.
    """
    said = facts.get("husai", {})
    claims = [said.get(f"claimed_{name}") for name in ("recipe", "step")]
    return [said.get("recipe"), *claims, *(facts.get(name) for name in SHAPE), said.get("hook_name")]


def hand_back(
    session: Session, execution_id: str, attempt: int, reason: str = "drained", detail: str | None = None
) -> bool:
    """Give up an attempt without blame, so that another one goes on from its checkpoint if that is wanted.

    An execution fails with `infra.host` when faults of hosts have ended too many of its attempts.
    """
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return False
    lifecycle.end_attempt(session, execution, reason)
    if execution.cancel_requested:
        lifecycle.transition(session, execution, State.CANCELLED, "cancelled.user")
    elif reason == HOST and (faults := _host_faults(session, execution)) >= MOST_HOST_FAULTS:
        why = f"Faults of hosts ended {faults} attempts; at last: {detail}"
        lifecycle.transition(session, execution, State.FAILED, "infra.host", why)
    else:
        lifecycle.transition(session, execution, State.QUEUED, reason, detail)
        lifecycle.notify(session, execution)
    session.flush()
    failpoint("hand_back.before_commit")
    return True


def _host_faults(session: Session, execution: Execution) -> int:
    """How many attempts of an execution were ended by faults of hosts."""
    session.flush()
    ended = select(func.count()).where(Attempt.execution_id == execution.id, Attempt.outcome == HOST)
    return session.scalar(ended) or 0


def block(session: Session, execution_id: str, attempt: int, detail: str, assets: list[dict[str, Any]]) -> bool:
    """Let an execution wait for assets that its worker lacks; that is no failed attempt."""
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return False
    lifecycle.end_attempt(session, execution, MISSING)
    if execution.cancel_requested:
        lifecycle.transition(session, execution, State.CANCELLED, "cancelled.user")
    else:
        execution.assets = assets
        lifecycle.transition(session, execution, State.BLOCKED, MISSING, detail)
    session.flush()
    failpoint("block.before_commit")
    return True


def blocked(session: Session, queues: Sequence[str], devices: Sequence[str]) -> dict[str, list[str]]:
    """The names of the assets that each blocked execution of these queues waits for, by its id."""
    columns = Execution.id, Execution.assets
    query = select(*columns).where(Execution.state == State.BLOCKED, Execution.queue.in_(queues))
    rows = session.execute(query.where(or_(Execution.device.in_(devices), Execution.queue == queue.CONTROL)))
    return {id: [asset["name"] for asset in assets or []] for id, assets in rows}


def unblock(session: Session, ids: Sequence[str]) -> list[str]:
    """Queue blocked executions again whose assets have arrived; returns the ids of those that still were blocked."""
    query = select(Execution).where(Execution.id.in_(ids), Execution.state == State.BLOCKED).order_by(Execution.id)
    executions = list(session.scalars(query.with_for_update()))
    for execution in executions:
        execution.assets = None
        lifecycle.transition(session, execution, State.QUEUED, "asset.arrived")
        lifecycle.notify(session, execution)
    session.flush()
    if executions:
        failpoint("unblock.before_commit")
    return [execution.id for execution in executions]


def give_up(session: Session, execution_id: str, attempt: int, max_attempts: int, why: str) -> bool:
    """Report that the attempt was lost to something outside it; another one follows while some are left."""
    execution = _held(session, execution_id, attempt)
    if execution is None:
        return False
    _requeue(session, execution, max_attempts, why)
    session.flush()
    failpoint("give_up.before_commit")
    return True


def reap(
    session: Session, max_attempts: int, worker_id: str = "", boot_id: str = "", *, expired_too: bool = True
) -> int:
    """Take back executions whose lease ran out, and those of an earlier boot of the named worker; returns how many."""
    expired = and_(Execution.lease_until < now(), true() if expired_too else false())
    earlier = (Execution.worker_id == worker_id) & (Execution.boot_id != boot_id)
    query = select(Execution).where(Execution.state == State.RUNNING, or_(expired, earlier))
    lost = list(session.scalars(query.order_by(Execution.id).with_for_update(skip_locked=True)))
    for execution in lost:
        try:
            with session.begin_nested():
                _requeue(session, execution, max_attempts, "its worker was lost")
        except Exception:
            log.exception("%s could not be taken back", execution.id)
    session.flush()
    if lost:
        failpoint("reap.before_commit")
    return len(lost)


def _requeue(session: Session, execution: Execution, max_attempts: int, why: str) -> None:
    """Queue an execution again whose process or worker was lost, unless that has happened too often."""
    lifecycle.end_attempt(session, execution, "infra.lost")
    execution.lost += 1
    if execution.cancel_requested:
        lifecycle.transition(session, execution, State.CANCELLED, "cancelled.user")
    elif execution.lost >= max_attempts:
        lifecycle.transition(
            session, execution, State.FAILED, "infra.lost", f"Lost {execution.lost} times; at last: {why}."
        )
    else:
        lifecycle.transition(session, execution, State.QUEUED, "infra.lost", f"{why.capitalize()}.")
        lifecycle.notify(session, execution)


def _held(session: Session, execution_id: str, attempt: int) -> Execution | None:
    """The execution, locked, if this attempt still holds it; a stale write is counted."""
    execution = session.get_one(Execution, execution_id, with_for_update=True)
    if execution.attempt == attempt and execution.state == State.RUNNING:
        return execution
    count(session, "stale_writes_rejected")
    return None


def count(session: Session, name: str) -> None:
    """Add one to a counter."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(Counter).values(name=name, value=1)
    session.execute(first.on_conflict_do_update(index_elements=["name"], set_={"value": Counter.value + 1}))
