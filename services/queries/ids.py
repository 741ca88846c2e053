"""Shortened ids: a prefix stands for the one id that begins with it, among those that the caller may see."""

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.accounts import Principal
from services.problems import conflict, not_found
from services.queries import access
from services.settings import Settings
from services.tables import ApiKey, ArtifactRow, Candidate, Decision, Job

ID, DIGEST = 24, 64
"""Hexadecimal digits of a whole id, and of a whole digest."""
NAMED = 10
"""How many ids an ambiguous prefix is answered with."""


def job(session: Session, principal: Principal, prefix: str) -> str:
    """The id of one of the caller's jobs.

    Raises:
        Problem: `unknown-job` or `ambiguous-id`.
    """
    visible = true() if principal.admin else Job.owner_id == principal.owner_id
    return prefix if len(prefix) == ID else _one(session, "job", Job.id, prefix, visible)


def key(session: Session, principal: Principal, prefix: str) -> str:
    """The id of one of the caller's API keys.

    Raises:
        Problem: `unknown-key` or `ambiguous-id`.
    """
    visible = true() if principal.admin else ApiKey.owner_id == principal.owner_id
    return prefix if len(prefix) == ID else _one(session, "key", ApiKey.id, prefix, visible)


def decision(session: Session, settings: Settings, principal: Principal, prefix: str) -> str:
    """The id of a decision.

    Raises:
        Problem: `unknown-decision` or `ambiguous-id`.
    """
    visible = access.executions(settings, principal, Decision.execution_id)
    return prefix if len(prefix) == ID else _one(session, "decision", Decision.id, prefix, visible)


def artifact(session: Session, settings: Settings, principal: Principal, prefix: str) -> str:
    """The digest of an artifact. A single file of one is named by its whole digest only.

    Raises:
        Problem: `unknown-artifact` or `ambiguous-id`.
    """
    visible = access.artifacts(settings, principal, ArtifactRow.sha256)
    return prefix if len(prefix) == DIGEST else _one(session, "artifact", ArtifactRow.sha256, prefix, visible)


def candidate(session: Session, settings: Settings, principal: Principal, prefix: str) -> str:
    """The digest of a candidate.

    Raises:
        Problem: `unknown-candidate` or `ambiguous-id`.
    """
    visible = access.artifacts(settings, principal, Candidate.sha256)
    return prefix if len(prefix) == DIGEST else _one(session, "candidate", Candidate.sha256, prefix, visible)


def _one(
    session: Session, what: str, column: InstrumentedAttribute[str], prefix: str, visible: ColumnElement[bool]
) -> str:
    begins = column.between(prefix, prefix + "g")  # read from the index, with any collation
    query = select(column).where(begins, column.startswith(prefix), visible).order_by(column).limit(NAMED)
    matches = list(session.scalars(query))
    if not matches:
        raise not_found(what, prefix)
    if len(matches) > 1:
        more = " or more" if len(matches) == NAMED else ""
        detail = f"{len(matches)}{more} {what}s begin with {prefix}; give more digits."
        raise conflict("ambiguous-id", "Ambiguous id", detail, matches=matches)
    return matches[0]
