"""What a caller can do with jobs: submit, look up, list, cancel, retry, run again."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import bindparam, func, select, text
from sqlalchemy.orm import Session

from husai_core import kinds, wording
from husai_core.errors import UserError
from husai_core.identity import digest
from husai_core.kinds.kind import BaseSpec, Kind
from services import instants, lifecycle, policies
from services.accounts import Principal
from services.db import clock
from services.failpoints import failpoint
from services.ids import new_id
from services.problems import Problem, conflict, invalid, not_found
from services.settings import Settings
from services.states import State
from services.tables import ASKED_FOR, ArtifactRow, Execution, Idempotency, Job

log = logging.getLogger("husai.jobs")
PRIORITIES = {"gate": 0, "interactive": 1, "batch": 2, "backfill": 3}
UNFINISHED = select(func.count()).select_from(Job).where(Job.owner_id == bindparam("owner_id"), text(ASKED_FOR))
"""Built once, as to build it takes longer than to run it."""
Reference = str | dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """A request for one job. `inputs` maps a port to digests or `{"job", "output", "index"}` references."""

    kind: str
    spec: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, list[Reference]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    priority: str = "interactive"
    device: str = "auto"
    reuse: bool = True


def submit(
    session: Session,
    settings: Settings,
    owner_id: str,
    submission: Submission,
    *,
    key: str | None = None,
    retry_of: str | None = None,
    environment: dict[str, Any] | None = None,
) -> tuple[Job, bool]:
    """Accept a job in the caller's transaction; returns it and whether this call made it.

    Raises:
        Problem: the request names something unknown or unfit, or the owner has too many unfinished jobs.
    """
    body = digest({**vars(submission), "environment": environment or {}}) if key is not None else ""
    if key is not None and (earlier := session.get(Idempotency, (owner_id, key))):
        if earlier.body != body:
            raise invalid("idempotency-mismatch", "Key used before", f"Idempotency-Key {key!r} came with another body.")
        return session.get_one(Job, earlier.job_id), False
    kind = find_kind(submission.kind)
    spec = validate_spec(kind, submission.spec, session)
    check_inputs(session, kind, spec, submission.inputs)
    _check_quota(session, settings, owner_id)
    job = Job(
        id=new_id("job"), owner_id=owner_id, kind=kind.name, spec=spec.model_dump(mode="json"),
        inputs=submission.inputs, labels=submission.labels,
        device=settings.device_class if submission.device == "auto" else submission.device,
        environment=environment or {}, priority=PRIORITIES[submission.priority], reuse=submission.reuse,
        private=not settings.share_results, state=State.WAITING, version=1, retry_of=retry_of,
        created_at=clock(session),
    )  # fmt: skip
    lifecycle.enter(session, job)
    lifecycle.advance(session, job)
    session.flush()
    if key is not None:
        session.add(Idempotency(owner_id=owner_id, key=key, body=body, job_id=job.id))
        session.flush()
    failpoint("submit.before_commit")
    log.info("job %s accepted: %s of owner %s, %s", job.id, job.kind, owner_id, job.state)
    return job, True


def names_of(kind: str) -> list[str]:
    """Every name under which jobs of a kind are stored: its own and earlier ones."""
    kind = kinds.ALIASES.get(kind, kind)
    return [kind, *(earlier for earlier, name in kinds.ALIASES.items() if name == kind)]


def find_kind(name: str) -> Kind:
    """A kind by name.

    Raises:
        Problem: `unknown-kind`.
    """
    try:
        return kinds.get(name)
    except KeyError:
        known = list(kinds.names())
        near = wording.closest(name, known)
        detail = f"There is no kind {name!r}{wording.hint(near) or '.'}"
        raise invalid("unknown-kind", "Unknown kind", detail, known=known, suggestions=near) from None


def prepare(name: str) -> None:
    """Work out the code digests that submitting a kind needs, once in a process.

    That reads and parses every source of a kind and of its children, which takes a second and more on a busy machine,
    so it is to be called before the transaction: a server ends one whose client is silent for long.
    """
    for descendant in kinds.descendants(find_kind(name).name):
        kinds.code_digest(descendant)


def validate_spec(kind: Kind, spec: dict[str, Any], session: Session) -> BaseSpec:
    """The full spec with its defaults, with a lab's policy in full, and `stamp: now` fields at the database's time.

    Raises:
        Problem: `invalid-spec`, naming the first wrong field, `as-of-ahead` or `as-of-past`; `unknown-policy`,
            `retired-policy` or `policy-changed`.
    """
    present = clock(session) if instants.fields(kind) else 0.0
    spec = policies.completed(session, kind, spec)
    try:
        parsed = kind.spec.model_validate(instants.stamped(kind, spec, present))
    except ValidationError as wrong:
        explained = [wording.explain(error, kind.spec) for error in wrong.errors()]
        errors = [{"field": path, "message": message, "suggestions": near} for path, message, near in explained]
        detail = f"{kind.name}: {explained[0][0] or 'spec'}: {explained[0][1]}"
        raise invalid("invalid-spec", "Invalid spec", detail, errors=errors) from None
    instants.check(kind, parsed, present)
    policies.check(session, kind, parsed)
    return parsed


def check_inputs(session: Session, kind: Kind, spec: BaseSpec, inputs: dict[str, list[Reference]]) -> None:
    """Refuse inputs that can be seen to be wrong now.

    Raises:
        Problem: `missing-input`, `unknown-input`, `unfit-input`, `unknown-artifact`, `wrong-artifact-type`,
            `unknown-output` or `unknown-job`.
    """
    for name in inputs:
        if name not in kind.inputs:
            known, near = ", ".join(kind.inputs) or "none", wording.closest(name, kind.inputs)
            detail = f"{kind.name} has no input {name!r}{wording.hint(near) or '.'} It has: {known}."
            raise invalid("unknown-input", "Unknown input", detail, known=list(kind.inputs), suggestions=near)
    for name, port in kind.inputs.items():
        references = inputs.get(name, [])
        if port.required and not references:
            raise invalid("missing-input", "Missing input", f"{kind.name} needs input {name!r}: {port.help}.")
        if all(isinstance(reference, str) for reference in references):
            try:
                lifecycle.check_count(kind, name, len(references))
            except lifecycle.InputFailed as wrong:
                raise invalid("wrong-input-count", "Wrong number of inputs", f"{wrong}.") from None
        for reference in references:
            _check_reference(session, kind, name, reference)
    try:
        spec.check_ports([name for name, references in inputs.items() if references])
    except UserError as wrong:
        raise invalid("unfit-input", "Unfit input", f"{kind.name}: {wrong}.") from None


def _check_reference(session: Session, kind: Kind, name: str, reference: Reference) -> None:
    wanted = kind.inputs[name].type
    if isinstance(reference, dict):
        label, type = _output(session, name, reference)
    else:
        artifact = session.get(ArtifactRow, reference)
        if artifact is None:
            detail = f"Input {name!r}: there is no artifact {reference!r}."
            raise invalid("unknown-artifact", "Unknown artifact", detail)
        label, type = reference[:12], artifact.type
    if type != wanted:
        detail = f"Input {name!r} takes {wanted}; {label} is {type}."
        raise invalid("wrong-artifact-type", "Wrong artifact type", detail)


def _output(session: Session, name: str, reference: dict[str, Any]) -> tuple[str, str]:
    """What a reference to another job's output is called, and the type of artifact that will be there."""
    source, output = session.get(Job, reference.get("job")), str(reference.get("output"))
    if source is None:
        raise not_found("job", str(reference.get("job")))
    ports = find_kind(source.kind).all_outputs
    if output not in ports:
        near = wording.closest(output, ports)
        hint = wording.hint(near) or "."
        detail = f"Input {name!r}: {source.kind} has no output {output!r}{hint} It has: {', '.join(ports)}."
        raise invalid("unknown-output", "Unknown output", detail, known=list(ports), suggestions=near)
    _check_index(session, source, name, output, reference.get("index"))
    return f"{output} of {source.kind}", ports[output].type


def _check_index(session: Session, source: Job, name: str, output: str, index: int | None) -> None:
    """Refuse an index beyond what a job that has succeeded wrote, or beyond the one artifact of a single output.

    Raises:
        Problem: `unknown-output`.
    """
    port = find_kind(source.kind).all_outputs[output]
    ended = source.state == State.SUCCEEDED
    count = len(lifecycle.outputs(session, source).get(output, [])) if ended else None if port.many else 1
    if index is not None and count is not None and index >= count:
        has = "one artifact, number 0" if count == 1 else f"{count} artifacts, numbers 0 to {count - 1}"
        detail = f"Input {name!r}: {output} of {source.kind} has {has if count else 'none'}; {index} is beyond."
        raise invalid("unknown-output", "Unknown output", detail)


def _check_quota(session: Session, settings: Settings, owner_id: str) -> None:
    if (session.scalar(UNFINISHED, {"owner_id": owner_id}) or 0) >= settings.max_queued:
        detail = f"You have {settings.max_queued} unfinished jobs, which is the limit."
        raise Problem(429, "too-many-jobs", "Too many jobs", detail)


def get(session: Session, principal: Principal, job_id: str) -> Job:
    """One of the caller's jobs; an admin sees everyone's.

    Raises:
        Problem: `unknown-job`.
    """
    job = session.get(Job, job_id)
    if job is None or not (principal.admin or job.owner_id == principal.owner_id):
        raise not_found("job", job_id)
    return job


def cancel(session: Session, principal: Principal, job_id: str) -> Job:
    """Detach a job from its execution, which stops when no other job follows it.

    Raises:
        Problem: `unknown-job`, or `already-final`.
    """
    job = get(session, principal, job_id)
    if job.state.final:
        detail = f"Job {job.id} has ended already: {job.state}."
        raise conflict("already-final", "Already final", detail, state=job.state)
    lifecycle.cancel(session, [job], "cancelled.user")
    session.flush()
    failpoint("cancel.before_commit")
    log.info("job %s cancelled by owner %s", job.id, principal.owner_id)
    return job


def retry(session: Session, settings: Settings, principal: Principal, job_id: str) -> Job:
    """A new job like one that did not succeed.

    Raises:
        Problem: `unknown-job`, or `not-retryable`.
    """
    job = get(session, principal, job_id)
    if not job.state.final or job.state == State.SUCCEEDED:
        detail = f"Job {job.id} is in state {job.state}; only a failed, cancelled or timed out job can be retried."
        raise conflict("not-retryable", "Not retryable", detail)
    return _again(session, settings, job, reuse=job.reuse, environment=job.environment, retry_of=job.id)


def manifest(session: Session, principal: Principal, job_id: str) -> str:
    """The digest of the manifest of a succeeded job, which can be rerun.

    Raises:
        Problem: `unknown-job`, or `not-rerunnable`.
    """
    job = get(session, principal, job_id)
    if job.state != State.SUCCEEDED:
        raise conflict(
            "not-rerunnable",
            "Not rerunnable",
            f"Job {job.id} is in state {job.state}; only one that succeeded can be rerun.",
        )
    return lifecycle.outputs(session, job)["manifest"][0]


def is_urgent(priority: str | int) -> bool:
    """True for the class of the gates, which goes before all others and so needs the scope `gate`."""
    return priority in ("gate", PRIORITIES["gate"])


def rerun(
    session: Session, settings: Settings, principal: Principal, job_id: str, capability: Mapping[str, Any]
) -> Job:
    """Execute a succeeded job again, never reusing its result, in the environment that its manifest names.

    Raises:
        Problem: `unknown-job`.
    """
    environment = {"threads": capability["threads"], "cpu_capability": capability["cpu"]["capability"]}
    return _again(session, settings, get(session, principal, job_id), reuse=False, environment=environment)


def _again(
    session: Session,
    settings: Settings,
    job: Job,
    *,
    reuse: bool,
    environment: dict[str, Any],
    retry_of: str | None = None,
) -> Job:
    inputs = job.inputs
    if job.execution_id is not None:
        inputs = session.get_one(Execution, job.execution_id).inputs
    priority = next(name for name, value in PRIORITIES.items() if value == job.priority)
    submission = Submission(job.kind, job.spec, inputs, job.labels, priority, job.device, reuse)
    again, _ = submit(session, settings, job.owner_id, submission, retry_of=retry_of, environment=environment)
    return again
