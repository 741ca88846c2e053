"""Owners and API keys. A key is `husai_<id>_<secret><checksum>`; only an HMAC of it is stored."""

import hashlib
import hmac
import os
import secrets
import string
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.db import Database, clock
from services.ids import new_id
from services.problems import Problem, not_found
from services.settings import Settings
from services.tables import ApiKey, Owner

ALPHABET = string.digits + string.ascii_letters
SCOPES = frozenset({"read", "submit", "gate", "admin"})
ROLES = {"researcher": ("read", "submit", "gate"), "ci": ("read", "gate"), "admin": ("read", "submit", "gate", "admin")}


@dataclass(frozen=True)
class Principal:
    """Who is asking, and what the key in use allows."""

    owner_id: str
    owner: str
    role: str
    scopes: frozenset[str]
    key_id: str

    @property
    def admin(self) -> bool:
        """True when every owner's jobs are open to this key."""
        return "admin" in self.scopes


def create_owner(session: Session, name: str, role: str) -> Owner:
    """Add an owner, or return the one that already has this name."""
    owner = session.scalar(select(Owner).where(Owner.name == name))
    if owner is None:
        owner = Owner(id=new_id(), name=name, role=role, created_at=clock(session))
        session.add(owner)
        session.flush()
    return owner


def create_key(
    session: Session, mac_key: bytes, owner_id: str, name: str, scopes: list[str], expires_at: float | None = None
) -> tuple[ApiKey, str]:
    """Add a key; the token is returned here and never again."""
    prefix = f"husai_{_random(8)}"
    body = f"{prefix}_{_random(32)}"
    token = body + _checksum(body)
    key = ApiKey(
        id=new_id(), owner_id=owner_id, name=name, prefix=prefix, mac=_mac(mac_key, token),
        scopes=sorted(scopes), created_at=clock(session), expires_at=expires_at, revoked_at=None,
    )  # fmt: skip
    session.add(key)
    session.flush()
    return key, token


def authenticate(session: Session, mac_key: bytes, token: str) -> Principal:
    """Who holds this token.

    Raises:
        Problem: 401 `bad-key`, `expired-key` or `revoked-key`.
    """
    prefix, _, secret = token.rpartition("_")
    key = None
    if secret and _checksum(token[:-6]) == token[-6:]:
        key = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix))
    if key is None or not hmac.compare_digest(key.mac, _mac(mac_key, token)):
        raise _refused("bad-key", "This is not a key of this server.")
    return holder(session, key)


def holder(session: Session, key: ApiKey) -> Principal:
    """Who holds a key that is still good.

    Raises:
        Problem: 401 `expired-key` or `revoked-key`.
    """
    if key.revoked_at is not None:
        raise _refused("revoked-key", f"Key {key.prefix} was revoked.")
    if key.expires_at is not None and key.expires_at <= clock(session):
        raise _refused("expired-key", f"Key {key.prefix} has expired.")
    owner = session.get_one(Owner, key.owner_id)
    return Principal(owner.id, owner.name, owner.role, frozenset(key.scopes), key.id)


def require(principal: Principal, scope: str) -> None:
    """Refuse a key that lacks a scope.

    Raises:
        Problem: 403 `wrong-scope`.
    """
    if scope not in principal.scopes:
        raise Problem(403, "wrong-scope", "Wrong scope", f"This key has no {scope!r} scope.", required=scope)


def ruled(session: Session, principal: Principal, key_id: str) -> ApiKey:
    """A key that the caller may end, or sign out: its owner with a key that allows as much, and admins.

    Raises:
        Problem: `unknown-key` or `wrong-scope`.
    """
    key = session.get(ApiKey, key_id)
    if key is None or not (principal.admin or key.owner_id == principal.owner_id):
        raise not_found("key", key_id)
    for scope in key.scopes if not principal.admin else ():
        require(principal, scope)
    return key


def revoke(session: Session, principal: Principal, key_id: str) -> ApiKey:
    """Make a key useless from now on.

    Raises:
        Problem: `unknown-key` or `wrong-scope`.
    """
    key = ruled(session, principal, key_id)
    key.revoked_at = key.revoked_at or clock(session)
    return key


def mac_key(settings: Settings) -> bytes:
    """The server's secret, from `HUSAI_SECRET`, `HUSAI_SECRET_FILE`, or a file below the home folder."""
    if secret := os.environ.get("HUSAI_SECRET"):
        return secret.encode()
    path = Path(os.environ.get("HUSAI_SECRET_FILE") or settings.root / "secret")
    return private_file(path, lambda: secrets.token_hex(32)).encode()


def bootstrap(database: Database, settings: Settings) -> str:
    """Make the local administrator and its key on the first start; returns the token, kept in `<home>/key`."""

    def make() -> str:
        with database.write() as session:
            owner = create_owner(session, "admin", "admin")
            return create_key(session, mac_key(settings), owner.id, "local", list(ROLES["admin"]))[1]

    path = settings.root / "key"
    if path.exists():
        with database.read() as session:
            try:
                authenticate(session, mac_key(settings), path.read_text().strip())
            except Problem:
                path.unlink()
    return private_file(path, make)


def private_file(path: Path, make: Callable[[], str]) -> str:
    """The text of a file that only its owner can read, made once."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return path.read_text().strip()


def _refused(slug: str, detail: str) -> Problem:
    return Problem(401, slug, "Key refused", detail)


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits += ALPHABET[digit]
    return digits


def _mac(mac_key: bytes, token: str) -> str:
    return hmac.new(mac_key, token.encode(), hashlib.sha256).hexdigest()
