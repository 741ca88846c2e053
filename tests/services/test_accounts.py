import os
import stat

import pytest

from services import accounts
from services.db import Database, clock
from services.problems import Problem
from services.settings import Settings
from services.tables import ApiKey

MAC = b"secret of this test"


def make(database: Database, scopes: list[str], lifetime: float | None = None) -> tuple[str, str]:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        expires = None if lifetime is None else clock(session) + lifetime
        key, token = accounts.create_key(session, MAC, owner.id, "laptop", scopes, expires)
        return key.id, token


def test_a_key_opens_what_its_scopes_say(database: Database) -> None:
    _, token = make(database, ["read"])
    with database.read() as session:
        principal = accounts.authenticate(session, MAC, token)
        assert (principal.owner, principal.scopes, principal.admin) == ("ada", {"read"}, False)
        with pytest.raises(Problem) as refused:
            accounts.require(principal, "submit")
    assert (refused.value.status, refused.value.slug) == (403, "wrong-scope")


def test_the_secret_is_not_stored(database: Database) -> None:
    key_id, token = make(database, ["read"])
    with database.read() as session:
        key = session.get_one(ApiKey, key_id)
        assert token not in repr(vars(key))
        assert token.startswith(key.prefix)


@pytest.mark.parametrize("spoil", [lambda t: t[:-1] + "x", lambda t: t[:20], lambda t: "", lambda t: "husai_a_b"])
def test_a_wrong_token_is_refused(database: Database, spoil: "object") -> None:
    _, token = make(database, ["read"])
    with database.read() as session, pytest.raises(Problem) as refused:
        accounts.authenticate(session, MAC, spoil(token))  # type: ignore[operator]
    assert refused.value.slug == "bad-key"


def test_another_servers_key_is_refused(database: Database) -> None:
    _, token = make(database, ["read"])
    with database.read() as session, pytest.raises(Problem):
        accounts.authenticate(session, b"another secret", token)


def test_expired_and_revoked_keys_are_refused(database: Database) -> None:
    _, expired = make(database, ["read"], lifetime=-1)
    key_id, revoked = make(database, ["read"])
    with database.write() as session:
        accounts.revoke(session, accounts.authenticate(session, MAC, revoked), key_id)
    with database.read() as session:
        for token, slug in ((expired, "expired-key"), (revoked, "revoked-key")):
            with pytest.raises(Problem) as refused:
                accounts.authenticate(session, MAC, token)
            assert refused.value.slug == slug


def test_bootstrap_makes_one_local_key(database: Database, settings: Settings) -> None:
    token = accounts.bootstrap(database, settings)
    assert accounts.bootstrap(database, settings) == token
    assert stat.S_IMODE(os.stat(settings.root / "key").st_mode) == 0o600
    with database.read() as session:
        assert accounts.authenticate(session, accounts.mac_key(settings), token).admin
