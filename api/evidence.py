"""The evidence that a gate judges: all that is known when it is asked, so that nobody chooses among results."""

from sqlalchemy.orm import Session

from api.deps import Context
from husai_core.release.policy import Policy
from services import evidence, jobs, lifecycle, policies, tables
from services.accounts import Principal
from services.jobs import Submission
from services.queries import access


def add_known(context: Context, session: Session, principal: Principal, gate: Submission, key: str | None) -> None:
    """Add to the evidence of a `release.gate` job every result about its candidate, if there is a candidate yet.

    A repeated request with an Idempotency-Key keeps what was chosen when the key was first used.
    """
    named = gate.inputs.get("evidence", [])
    earlier = session.get(tables.Idempotency, (principal.owner_id, key)) if key else None
    before = session.get_one(tables.Job, earlier.job_id).inputs if earlier else None
    if before is not None and all(reference in before.get("evidence", []) for reference in named):
        if "evidence" in before:
            gate.inputs["evidence"] = before["evidence"]
    elif candidate := _candidate(session, principal, gate):
        digests = known(
            context, session, principal, policies.active(session, gate.spec.get("policy", "strict")), candidate
        )
        further = (reference for i, reference in enumerate(named) if reference not in [*digests, *named[:i]])
        gate.inputs["evidence"] = [*digests, *further]


def _candidate(session: Session, principal: Principal, gate: Submission) -> str | None:
    """The digest of the one candidate that a gate names, unless the job that makes it has still to succeed."""
    match gate.inputs.get("candidate"):
        case [str(digest)]:
            return digest
        case [{"job": str(job), "output": output, "index": int() | None as index}]:
            digests = lifecycle.outputs(session, jobs.get(session, principal, job)).get(output, [])
            return next(iter(digests[index or 0 :]), None)
    return None


def known(context: Context, session: Session, principal: Principal, policy: Policy, candidate: str) -> list[str]:
    """Digests of every result that the caller may see, that a rule of the policy reads and that names the candidate."""
    visible = access.artifacts(context.settings, principal, tables.Output.sha256)
    return evidence.known(session, candidate, {rule.evidence for rule in policy.rules}, visible)
