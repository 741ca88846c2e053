"""Browsers that are signed in: the cookie, the names under which they may reach this server, and their forms' token."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from services import sessions
from services.accounts import Principal
from services.problems import Problem

if TYPE_CHECKING:
    from api.deps import Context

SAFE = ("GET", "HEAD")
TOKEN_HEADER = "X-CSRF-Token"
"""Requests to `/v1` that change something send the token of their session's forms in this header."""


def check_host(request: Request, context: Context) -> None:
    """Refuse a name that is not this server's: a page of another site could have led a browser here by it.

    Raises:
        Problem: 421 `unknown-host`.
    """
    header = request.headers.get("host", "").lower()
    name = header if header.endswith("]") else header.rpartition(":")[0] or header
    if name not in context.hosts:
        detail = f"This server does not answer browsers as {name[:100]!r}. HUSAI_ALLOWED_HOSTS lists its names."
        raise Problem(421, "unknown-host", "Unknown host", detail)


def token(request: Request) -> str | None:
    """The token in the cookie of this browser's session."""
    return request.cookies.get(_cookie(request))


def key_missing() -> Problem:
    """401: nothing says who asks."""
    return Problem(401, "bad-key", "Key missing", "Send the header `Authorization: Bearer <key>`.")


async def principal(request: Request, context: Context) -> Principal:
    """Who is signed in with this browser, which must send a form's token with what changes anything.

    Raises:
        Problem: 401 `bad-key` or `signed-out`, 421 `unknown-host`, 403 `bad-form`.
    """
    cookie = token(request)
    if cookie is None:
        raise key_missing()
    check_host(request, context)
    holder = await run_in_threadpool(read, context, cookie)
    if request.method not in SAFE:
        check_form(context, cookie, request.headers.get(TOKEN_HEADER, ""))
    return holder


def read(context: Context, cookie: str) -> Principal:
    """Who is signed in with the token of a cookie.

    Raises:
        Problem: 401 `signed-out`, `expired-key` or `revoked-key`.
    """
    with context.database.read() as session:
        return sessions.principal(session, context.mac_key, cookie)


def check_form(context: Context, cookie: str, sent: str) -> None:
    """Refuse what another site may have made this browser send.

    Raises:
        Problem: 403 `bad-form`.
    """
    if not sessions.is_form_token(context.mac_key, cookie, sent):
        detail = f"The form is not of this session (a request to /v1 sends its token as {TOKEN_HEADER}). Load it again."
        raise Problem(403, "bad-form", "Form refused", detail)


def sign_in(request: Request, response: Response, context: Context, key_id: str) -> None:
    """Give the browser a cookie of a new session."""
    with context.write() as session:
        started = sessions.start(session, context.mac_key, key_id)
    response.set_cookie(_cookie(request), started, max_age=sessions.SESSION_SECONDS, **_flags(request))


def sign_out(request: Request, response: Response, context: Context) -> None:
    """End the browser's session."""
    if cookie := token(request):
        with context.write() as session:
            sessions.end(session, context.mac_key, cookie)
    response.delete_cookie(_cookie(request), **_flags(request))


def visitor_token(request: Request) -> str | None:
    """The random value that ties the sign-in form to this browser."""
    return request.cookies.get(_cookie(request) + "_form")


def set_visitor_token(request: Request, response: Response, value: str) -> None:
    """Keep the random value of the sign-in form in this browser."""
    response.set_cookie(_cookie(request) + "_form", value, max_age=3600, **_flags(request))


def is_same(first: str, second: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(first.encode(errors="replace"), second.encode(errors="replace"))


def _cookie(request: Request) -> str:
    """Browsers keep the ports of one host together, so the name tells servers on one machine apart."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"husai_{port if port.isascii() and port.isdigit() else 'session'}"


def _flags(request: Request) -> dict[str, Any]:
    return {"httponly": True, "samesite": "lax", "secure": request.url.scheme == "https", "path": "/"}
