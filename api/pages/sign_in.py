"""Signing in with a key or a code, and out."""

import secrets
from typing import Annotated

from fastapi import Query, Request, Response

from api import browsers
from api.deps import Context, Ctx
from api.pages.shell import Fields, Sent, back_to, is_local, pages_router, render
from services import accounts, sessions
from services.problems import Problem

router = pages_router()
HOME = "/jobs"
Target = Annotated[str, Query(alias="next", max_length=2000)]


@router.get("/sign-in")
def show(
    request: Request, context: Ctx, code: Annotated[str, Query(max_length=200)] = "", target: Target = HOME
) -> Response:
    """The form for a key; with a code, sign in at once."""
    where = target if is_local(target) else HOME
    if not code:
        return _form(request, context, where)
    try:
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem(403, "bad-form", "Code refused", "Another site led here. Run `husai open` again.")
        with context.write() as session:
            key_id = sessions.redeem(session, context.mac_key, code)
    except Problem as problem:
        return _form(request, context, where, problem)
    response = back_to(where)
    browsers.sign_in(request, response, context, key_id)
    return response


@router.post("/sign-in")
def sign_in(request: Request, context: Ctx, sent: Fields) -> Response:
    """Exchange a key for a session."""
    values = dict(sent)
    where = values.get("next", HOME)
    where = where if is_local(where) else HOME
    visitor = browsers.visitor_token(request)
    if visitor is None or not sessions.is_form_token(context.mac_key, visitor, values.get("form_token", "")):
        detail = "The form was not of this browser, or cookies are refused. Try again."
        return _form(request, context, where, Problem(403, "bad-form", "Form refused", detail))
    try:
        with context.database.read() as session:
            key_id = accounts.authenticate(session, context.mac_key, values.get("key", "").strip()).key_id
    except Problem as problem:
        return _form(request, context, where, problem)
    response = back_to(where)
    browsers.sign_in(request, response, context, key_id)
    return response


@router.post("/sign-out")
def sign_out(request: Request, context: Ctx, form: Sent) -> Response:
    """End the session."""
    response = back_to("/sign-in")
    browsers.sign_out(request, response, context)
    return response


def _form(request: Request, context: Context, where: str, problem: Problem | None = None) -> Response:
    """The form, tied to this browser by a cookie of its own."""
    visitor = browsers.visitor_token(request) or secrets.token_urlsafe(24)
    response = render(
        request,
        "sign_in.html",
        problem.status if problem else 200,
        title="Sign in",
        problem=problem,
        where=where,
        token=sessions.form_token(context.mac_key, visitor),
    )
    browsers.set_visitor_token(request, response, visitor)
    return response
