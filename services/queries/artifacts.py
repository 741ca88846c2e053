"""Artifacts that a caller may see."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.accounts import Principal
from services.queries import access, keyset
from services.settings import Settings
from services.tables import ArtifactRow

KEY = [ArtifactRow.created_at, ArtifactRow.sha256]


def page(
    session: Session,
    settings: Settings,
    principal: Principal,
    *,
    type: str | None = None,
    after: keyset.Key | None = None,
    limit: int = 50,
) -> tuple[list[ArtifactRow], list[object] | None]:
    """A page of artifacts, newest first, and the key of its last row if another page follows."""
    query = select(ArtifactRow).where(access.artifacts(settings, principal, ArtifactRow.sha256))
    if type is not None:
        query = query.where(ArtifactRow.type == type)
    return keyset.newest_first(session, query, KEY, after, limit)
