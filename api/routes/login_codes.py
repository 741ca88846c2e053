"""Codes that sign a browser in without a key in an address."""

from api import operations
from api.deps import Ctx, KeyHolder, v1_router
from services import sessions

router = v1_router("keys")


@router.post("/login-codes", status_code=201)
def make(context: Ctx, principal: KeyHolder) -> operations.LoginCode:
    """A code that signs a browser in as the holder of this key: open `/sign-in?code=…` once, within a minute.

    Only a key makes codes: a session that could would never end.
    """
    with context.write() as session:
        code = sessions.make_code(session, context.mac_key, principal.key_id)
    return operations.LoginCode(code=code, expires_in=sessions.CODE_SECONDS)
