"""SAE checkpoints that a gate may judge."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.accounts import Principal
from services.artifacts import Store
from services.problems import not_found
from services.queries import access, keyset
from services.settings import Settings
from services.tables import Candidate, Execution

KEY = [Candidate.created_at, Candidate.sha256]


def page(
    session: Session,
    settings: Settings,
    principal: Principal,
    *,
    after: keyset.Key | None = None,
    limit: int = 50,
) -> tuple[list[Candidate], list[object] | None]:
    """A page of candidates that the caller may see, newest first, and the key of its last row if another follows."""
    query = select(Candidate).where(access.artifacts(settings, principal, Candidate.sha256))
    return keyset.newest_first(session, query, KEY, after, limit)


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
