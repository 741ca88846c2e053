"""The jobs, newest first, and one job with all that there is to see of it."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from api import schemas
from api.deps import Ctx
from api.pages.shell import Seen, back_to, pages_router, render
from api.routes import jobs as v1
from husai_core.kinds import names
from services import accounts
from services.states import State

router = pages_router()
ROWS = 40


@router.get("/")
def home(visitor: Seen) -> Response:
    """The jobs are where one begins."""
    return back_to("/jobs")


@router.get("/jobs")
def listing(
    request: Request,
    context: Ctx,
    visitor: Seen,
    state: str = "",
    kind: str = "",
    label: Annotated[str, Query(max_length=64)] = "",
    cursor: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """The visitor's jobs with filters; an admin sees everyone's."""
    accounts.require(visitor.principal, "read")
    filters: dict[str, Any] = {
        "state": State(state) if state in list(State) else None,
        "kind": kind if kind in names() else None,
        "label": label or None,
    }
    page: schemas.Jobs = v1.listing(
        request, Response(), context, visitor.principal, cursor=cursor, limit=ROWS, **filters
    )
    return render(
        request,
        "jobs.html",
        title="Jobs",
        twin="/v1/jobs",
        jobs=page.items,
        following=page.next,
        filters=filters,
        states=list(State),
        kinds=names(),
    )
