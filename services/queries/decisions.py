"""Recorded decisions that a caller may see."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services import decisions, jobs
from services.accounts import Principal
from services.problems import not_found
from services.queries import access, keyset
from services.settings import Settings
from services.tables import Candidate, Decision, Execution, Job

KEY = [Decision.seq]


def page(
    session: Session,
    settings: Settings,
    principal: Principal,
    *,
    job: str | None = None,
    candidate: str | None = None,
    after: keyset.Key | None = None,
    limit: int = 50,
) -> tuple[list[Decision], list[object] | None]:
    """A page of decisions, newest first, and the key of its last row if another page follows.

    Args:
        job: only what this job decided.
        candidate: only those about this candidate.

    Raises:
        Problem: `unknown-job`.
    """
    query = select(Decision).where(access.executions(settings, principal, Decision.execution_id))
    if job is not None:
        query = query.where(Decision.execution_id == jobs.get(session, principal, job).execution_id)
    if candidate is not None:
        query = query.where(Decision.candidate == candidate)
    return keyset.newest_first(session, query, KEY, after, limit)


def get(session: Session, settings: Settings, principal: Principal, decision_id: str) -> Decision:
    """A decision by its id.

    Raises:
        Problem: `unknown-decision`.
    """
    row = decisions.get(session, decision_id)
    seen = access.executions(settings, principal, Decision.execution_id)
    if session.scalar(select(Decision.id).where(Decision.seq == row.seq, seen)) is None:
        raise not_found("decision", decision_id)
    return row


def latest(session: Session, settings: Settings, principal: Principal, policy: str, candidate: str) -> Decision | None:
    """The decision of a policy about a candidate that was judged last, of those that the caller may see."""
    query = select(Decision).where(Decision.policy == policy, Decision.candidate == candidate)
    query = query.order_by(Decision.judged_at.desc(), Decision.seq.desc()).limit(1)
    return session.scalar(query.where(access.executions(settings, principal, Decision.execution_id)))


def public_verdict(session: Session, settings: Settings, policy: str, sha256: str) -> str | None:
    """The last verdict of a policy about a candidate whose badge is public; None for every other one.

    Where the lab does not share results, only decisions count that the candidate's owner asked for.
    """
    candidate = session.get(Candidate, sha256)
    if candidate is None or not candidate.public_badge:
        return None
    query = select(Decision.verdict).where(Decision.policy == policy, Decision.candidate == sha256)
    if not settings.share_results:
        owner_id = session.get_one(Execution, candidate.execution_id).owner_id
        query = query.where(Decision.execution_id.in_(select(Job.execution_id).where(Job.owner_id == owner_id)))
    return session.scalar(query.order_by(Decision.judged_at.desc(), Decision.seq.desc()).limit(1))
