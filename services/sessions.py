"""Browsers that are signed in: sessions that live for hours and die with their key, and codes that work once."""

import hashlib
import hmac
import secrets
from collections.abc import Collection

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from services import accounts
from services.accounts import Principal
from services.db import clock
from services.problems import Problem
from services.tables import ApiKey, LoginCode, WebSession

SESSION_SECONDS = 12 * 3600
CODE_SECONDS = 60
LONGEST = 100
"""Letters of the longest token that is looked up."""


def start(session: Session, mac_key: bytes, key_id: str) -> str:
    """Sign a browser in with a key; returns the token for its cookie, which is stored nowhere."""
    instant, token = clock(session), secrets.token_urlsafe(32)
    _forget_expired(session, instant)
    row = WebSession(
        mac=_mac(mac_key, "session", token), key_id=key_id, created_at=instant, expires_at=instant + SESSION_SECONDS
    )
    session.add(row)
    return token


def principal(session: Session, mac_key: bytes, token: str) -> Principal:
    """Who is signed in with this token.

    Raises:
        Problem: 401 `signed-out`, `expired-key` or `revoked-key`.
    """
    row = session.get(WebSession, _mac(mac_key, "session", token)) if len(token) <= LONGEST else None
    if row is None or row.expires_at <= clock(session):
        raise Problem(401, "signed-out", "Signed out", "This browser is not signed in, or was for too long.")
    return accounts.holder(session, session.get_one(ApiKey, row.key_id))


def end(session: Session, mac_key: bytes, token: str) -> None:
    """Sign a browser out."""
    session.execute(delete(WebSession).where(WebSession.mac == _mac(mac_key, "session", token)))


def end_all(session: Session, key_id: str) -> None:
    """Sign out every browser that was signed in with a key."""
    session.execute(delete(WebSession).where(WebSession.key_id == key_id))


def counts(session: Session, key_ids: Collection[str]) -> dict[str, int]:
    """How many browsers are signed in with each key that has any."""
    live = select(WebSession.key_id, func.count()).where(
        WebSession.key_id.in_(key_ids), WebSession.expires_at > clock(session)
    )
    return dict(session.execute(live.group_by(WebSession.key_id)).tuples().all())


def form_token(mac_key: bytes, token: str) -> str:
    """What a form of this session must send along, so that no other site can send it."""
    return _mac(mac_key, "form", token)


def is_form_token(mac_key: bytes, token: str, sent: str) -> bool:
    """True when a form sent the token of its session."""
    return hmac.compare_digest(form_token(mac_key, token).encode(), sent.encode(errors="replace"))


def make_code(session: Session, mac_key: bytes, key_id: str) -> str:
    """A code that signs a browser in with a key, once, within a minute."""
    instant, code = clock(session), secrets.token_urlsafe(24)
    _forget_expired(session, instant)
    session.add(LoginCode(mac=_mac(mac_key, "code", code), key_id=key_id, expires_at=instant + CODE_SECONDS))
    return code


def redeem(session: Session, mac_key: bytes, code: str) -> str:
    """The key id of a code, which is then worth nothing.

    Raises:
        Problem: 401 `bad-code`, `expired-key` or `revoked-key`.
    """
    row = session.get(LoginCode, _mac(mac_key, "code", code)) if len(code) <= LONGEST else None
    if row is None or row.expires_at <= clock(session):
        detail = "This address was used before, or is older than a minute. Run `husai open` again."
        raise Problem(401, "bad-code", "Code refused", detail)
    session.delete(row)
    session.flush()
    accounts.holder(session, session.get_one(ApiKey, row.key_id))
    return row.key_id


def _forget_expired(session: Session, instant: float) -> None:
    for table in (WebSession, LoginCode):
        session.execute(delete(table).where(table.expires_at <= instant))


def _mac(mac_key: bytes, purpose: str, token: str) -> str:
    return hmac.new(mac_key, f"{purpose}:{token}".encode(errors="replace"), hashlib.sha256).hexdigest()
