"""API keys that a caller may see: their own, or everybody's for an admin."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.accounts import Principal
from services.queries import keyset
from services.tables import ApiKey

KEY = [ApiKey.id]


def page(
    session: Session, principal: Principal, *, after: keyset.Key | None = None, limit: int = 50
) -> tuple[list[ApiKey], list[object] | None]:
    """A page of keys, newest first, and the key of its last row if another page follows."""
    query = select(ApiKey) if principal.admin else select(ApiKey).where(ApiKey.owner_id == principal.owner_id)
    return keyset.newest_first(session, query, KEY, after, limit)
