"""What all pages share: who is looking, the templates, and refusals as pages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from api import browsers
from api.deps import Ctx
from api.errors import from_validation
from api.pages import text
from api.pages.static import address
from husai_core.errors import UserError
from services import sessions
from services.accounts import Principal
from services.problems import Problem

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "private, no-cache",
    "Referrer-Policy": "same-origin",
    "Vary": "Cookie",
}
SECTIONS = {
    "Jobs": "/jobs",
    "New job": "/kinds",
    "Candidates": "/candidates",
    "Decisions": "/decisions",
    "Workers": "/workers",
    "Keys": "/keys",
}
REFUSED_KEYS = ("bad-key", "signed-out", "expired-key", "revoked-key")
ENVIRONMENT = Environment(
    loader=PackageLoader("api"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.globals.update(static=address, sections=SECTIONS, span_of=text.span_of)
ENVIRONMENT.filters.update(text.FILTERS)


@dataclass(frozen=True)
class Visitor:
    """Who is looking, and the token of their forms."""

    principal: Principal
    form_token: str

    def may(self, scope: str) -> bool:
        """True when the visitor's key has a scope."""
        return scope in self.principal.scopes


def _visitor(request: Request, context: Ctx) -> Visitor:
    cookie = browsers.token(request)
    if cookie is None:
        raise Problem(401, "signed-out", "Signed out", "Sign in to see this page.")
    principal = browsers.read(context, cookie)
    request.state.visitor = Visitor(principal, sessions.form_token(context.mac_key, cookie))
    visitor: Visitor = request.state.visitor
    return visitor


Seen = Annotated[Visitor, Depends(_visitor)]


async def fields(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, as they were sent.

    Raises:
        Problem: 415 `unsupported-media-type` or 422 `invalid-request`.
    """
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Problem(415, "unsupported-media-type", "Unsupported media type", "Send a form.")
    try:
        return parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=5000)
    except ValueError:
        raise Problem(422, "invalid-request", "Invalid request", "The form cannot be read.") from None


Fields = Annotated[list[tuple[str, str]], Depends(fields)]


@dataclass(frozen=True)
class Form:
    """A form that a visitor sent from a page of this session."""

    visitor: Visitor
    fields: list[tuple[str, str]]

    def get(self, name: str, default: str = "") -> str:
        """The value of a field that is there once."""
        return next((value for field, value in self.fields if field == name), default)

    def all(self, name: str) -> list[str]:
        """The values of a field that may be there several times."""
        return [value for field, value in self.fields if field == name]


def _form(request: Request, context: Ctx, visitor: Seen, sent: Fields) -> Form:
    form = Form(visitor, sent)
    browsers.check_form(context, browsers.token(request) or "", form.get("form_token"))
    return form


Sent = Annotated[Form, Depends(_form)]


class PageRoute(APIRoute):
    """A route whose refusals are pages, and which answers to this server's own names only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with refusals turned into pages."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                browsers.check_host(request, request.app.state.context)
                response: Response = await handle(request)
            except Problem as problem:
                response = refusal(request, problem)
            except RequestValidationError as wrong:
                response = refusal(request, from_validation(wrong.errors()))
            except UserError as wrong:
                response = refusal(request, Problem(422, "invalid-request", "Not possible", str(wrong)))
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


def pages_router() -> APIRouter:
    """A router for pages."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)


def refusal(request: Request, problem: Problem) -> Response:
    """A refusal as a page; somebody who is not signed in is led to the page for that and back."""
    if problem.slug in REFUSED_KEYS and request.method == "GET":
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        where = {"next": target} if target != "/" else {}
        return RedirectResponse(f"/sign-in?{urlencode(where)}" if where else "/sign-in", 303)
    request.app.state.context.refusals.write(request.scope, problem)
    return render(request, "error.html", problem.status, title=problem.title, problem=problem)


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template; `twin` among the values is the address of its JSON."""
    visitor = getattr(request.state, "visitor", None)
    shown: Mapping[str, Any] = {
        "twin": None, "visitor": visitor, "path": request.url.path, "with_cursor": _with_cursor(request), **values
    }  # fmt: skip
    return HTMLResponse(ENVIRONMENT.get_template(template).render(**shown), status)


def _with_cursor(request: Request) -> Callable[[str], str]:
    """The address of another page of the list that is shown."""
    url = request.url
    return lambda cursor: f"{url.path}?{url.include_query_params(cursor=cursor).query}"


def back_to(path: str) -> RedirectResponse:
    """Lead the browser to a page after a form has taken effect."""
    return RedirectResponse(path, 303)


def is_local(path: str) -> bool:
    """True for an address below this server that no browser takes for another site."""
    return path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
