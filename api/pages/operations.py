"""The queue, the workers and the keys."""

from dataclasses import dataclass

from fastapi import Request, Response
from pydantic import ValidationError

from api import operations, paging
from api.deps import Context, Ctx
from api.pages.paths import KeyPath
from api.pages.shell import Form, Seen, Sent, Visitor, back_to, pages_router, render
from api.routes import keys as keys_v1
from api.routes import system as system_v1
from services import accounts
from services.problems import Problem

router = pages_router()
SCOPES = ("read", "submit", "gate", "admin")
ROLES = ("researcher", "ci", "admin")


@router.get("/workers")
def workers(request: Request, context: Ctx, visitor: Seen) -> Response:
    """How much waits and runs, and who works on it."""
    accounts.require(visitor.principal, "read")
    queue = system_v1.queue(context, visitor.principal)
    states = ("waiting", "blocked", "queued", "running")
    return render(
        request, "workers.html", title="Workers and queue", twin="/v1/workers", queue=queue, states=states,
        workers=system_v1.workers(context, visitor.principal).items,
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of the form for a new key: the key with its token, or what was wrong."""

    key: operations.NewKey | None = None
    problem: str = ""


@router.get("/keys")
def keys(request: Request, context: Ctx, visitor: Seen, cursor: paging.Cursor = None) -> Response:
    """The visitor's keys; an admin sees everyone's and makes new ones."""
    return _keys(request, context, visitor, Outcome(), cursor)


@router.post("/keys")
def make(request: Request, context: Ctx, form: Sent) -> Response:
    """Make a key. Its token is on the page that answers, and nowhere else."""
    accounts.require(form.visitor.principal, "admin")
    try:
        outcome = Outcome(keys_v1.make(_request(form), context, form.visitor.principal))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        outcome = Outcome(problem=f"{first['loc'][0]}: {first['msg']}")
    except Problem as problem:
        outcome = Outcome(problem=problem.detail)
    response = _keys(request, context, form.visitor, outcome, None)
    response.headers["Cache-Control"] = "no-store"
    return response


def _request(form: Form) -> operations.KeyRequest:
    return operations.KeyRequest.model_validate(
        {
            "name": form.get("name"),
            "scopes": form.all("scopes"),
            "owner": form.get("owner") or None,
            "role": form.get("role") or None,
            "expires_in_days": form.get("expires_in_days") or None,
        }
    )


def _keys(request: Request, context: Context, visitor: Visitor, outcome: Outcome, cursor: str | None) -> Response:
    accounts.require(visitor.principal, "read")
    page = keys_v1.listing(request, Response(), context, visitor.principal, cursor, 100)
    return render(
        request, "keys.html", 422 if outcome.problem else 200,
        title="Keys", twin="/v1/keys", page=page, outcome=outcome, scopes=SCOPES, roles=ROLES,
    )  # fmt: skip


@router.post("/keys/{key_id}/revoke")
def revoke(key_id: KeyPath, context: Ctx, form: Sent) -> Response:
    """Make a key useless from now on, and every session of it."""
    keys_v1.revoke(key_id, context, form.visitor.principal)
    return back_to("/keys")


@router.post("/keys/{key_id}/sign-out")
def sign_out(key_id: KeyPath, context: Ctx, form: Sent) -> Response:
    """Sign out every browser that is signed in with a key, this one too if it is of that key."""
    keys_v1.sign_out(key_id, context, form.visitor.principal)
    return back_to("/keys")
