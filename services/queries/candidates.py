"""SAE checkpoints that a gate may judge."""

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session, aliased

from services.accounts import Principal
from services.artifacts import Store
from services.problems import not_found
from services.queries import access, keyset
from services.settings import Settings
from services.tables import Candidate, Execution, Job

KEY = [Candidate.created_at, Candidate.sha256]


def page(
    session: Session,
    settings: Settings,
    principal: Principal,
    *,
    after: keyset.Key | None = None,
    limit: int = 50,
    controls: bool = True,
) -> tuple[list[Candidate], list[object] | None]:
    """A page of candidates that the caller may see, newest first, and the key of its last row if another follows.

    Args:
        controls: also the SAEs that gates train as their own controls.
    """
    query = select(Candidate).where(access.artifacts(settings, principal, Candidate.sha256))
    if not controls:
        query = query.where(Candidate.execution_id.in_(_asked_for()))
    return keyset.newest_first(session, query, KEY, after, limit)


def _asked_for() -> Select[str | None]:
    """The executions that somebody, or a study that is no gate, asked for."""
    parent = aliased(Execution)
    query = select(Job.execution_id).outerjoin(parent, parent.id == Job.parent_id)
    return query.where(or_(Job.parent_id.is_(None), parent.kind.not_like("release.%")))


def owner_id(session: Session, candidate: Candidate) -> str:
    """The owner whose job made a candidate."""
    return session.get_one(Execution, candidate.execution_id).owner_id


def get(session: Session, settings: Settings, store: Store, principal: Principal, sha256: str) -> Candidate:
    """A candidate that the caller may see.

    Raises:
        Problem: `unknown-candidate`.
    """
    row = session.get(Candidate, sha256)
    if row is None or not access.blob(settings, store, session, principal, sha256):
        raise not_found("candidate", sha256)
    return row
