"""Every refusal as one RFC 9457 document with a stable `type`."""

import json
import logging
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from api.fields import SHAPES
from api.kinds import unknown as unknown_kind
from api.schemas import JobRequest
from husai_core import kinds, wording
from husai_core.errors import UserError
from services.db import away
from services.problems import Problem, storage_problem

log = logging.getLogger("husai.api")

MEDIA_TYPE = "application/problem+json"
ROUTING = {
    400: ("invalid-request", "Invalid request"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("body-too-large", "Body too large"),
}
SOURCE = "is neither a SHA-256, nor an object with job and output (and index), nor a list of these"
PATHS = {"job_id": "job", "sha256": "artifact", "decision_id": "decision", "key_id": "key"}
"""What the names in paths stand for, where they are not that themselves."""
RULE_FORMS = ("StatisticRule", "ProvenanceRule")
"""What stands for a form of rule in the path of an error in a policy."""
BODY_FIELDS = tuple(JobRequest.model_fields)


def install(app: FastAPI) -> None:
    """Answer every expected exception with a problem document."""
    handlers: dict[type[Exception], Callable[[Request, Any], Problem]] = {
        Problem: _problem,
        RequestValidationError: _invalid,
        HTTPException: _routing,
        UserError: _unfit,
        DBAPIError: _database,
        OSError: _storage,
        ClientDisconnect: _gone,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, partial(_answer, handler))


async def _answer(explain: Callable[[Request, Any], Problem], request: Request, error: Exception) -> Response:
    problem = explain(request, error)
    request.app.state.context.refusals.write(request.scope, problem)
    return respond(problem)


def respond(problem: Problem) -> Response:
    """The problem as a response, with the headers that belong to its status."""
    headers = dict(problem.extra.pop("headers", {}))
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="husai"'
    if problem.status in (429, 503):
        headers.setdefault("Retry-After", str(problem.extra.get("retry_after", 5)))
    body = json.dumps(problem.document())
    return Response(body, problem.status, headers, MEDIA_TYPE)


MOST_FIELDS = 8
"""Fields that one refusal names."""


def from_validation(errors: Sequence[Any], kind: str = "") -> Problem:
    """The problem that a failed validation is.

    Args:
        kind: the job kind that the request is for, if it names one.
    """
    for error in errors:
        if error["loc"][0] == "path":
            what = PATHS.get(name := str(error["loc"][1]), name)
            short = re.fullmatch(r"[0-9a-f]{1,7}", str(error["input"])) is not None and what != "kind"
            more = " Give at least its first 8 digits." if short else ""
            detail = f"There is no {what} {error['input']!r:.80}.{more}"
            return Problem(404, f"unknown-{what}", f"Unknown {what}", detail)
        if error["type"] == "union_tag_invalid" and error["loc"] == ("body",):
            return unknown_kind(422, str(error["ctx"]["tag"]), list(kinds.names()))
    known = [_field(error, kind) for error in errors if not _is_echo(error, errors)]
    fields = list({field["field"]: field for field in known}.values())
    texts = [": ".join(filter(None, (field["field"], field["message"]))) for field in fields]
    left_out = [f"and {len(texts) - MOST_FIELDS} more"] if len(texts) > MOST_FIELDS else []
    detail = "; ".join([*texts[:MOST_FIELDS], *left_out])
    if all(field["field"].split(".")[0] == "spec" for field in fields):
        return Problem(422, "invalid-spec", "Invalid spec", detail, errors=fields)
    return Problem(422, "invalid-request", "Invalid request", detail, errors=fields)


def _is_echo(error: Any, errors: Sequence[Any]) -> bool:
    """Whether a list only counts as too short because elements of it are wrong, which is said of these."""
    place = tuple(error["loc"])
    inside = (tuple(other["loc"]) for other in errors)
    return error["type"] == "too_short" and any(loc[: len(place)] == place != loc for loc in inside)


def _field(error: Any, kind: str) -> dict[str, Any]:
    """Where an error is, what is wrong there, and what may have been meant."""
    if error["type"] == "json_invalid":
        message = f"{wording.plain(error)}, after {error['loc'][-1]} characters"
        return {"field": "body", "message": message, "suggestions": []}
    steps = [step for step in error["loc"] if step not in ("body", "query", "header", *RULE_FORMS)]
    if steps and steps[0] == kind:
        steps = steps[1:]
    if steps and steps[0] == "inputs":
        return {"field": ".".join(map(str, steps[:2])), "message": SOURCE, "suggestions": []}
    if steps and steps[0] == "spec" and kind in kinds.names():
        path, message, near = wording.explain({**error, "loc": steps[1:]}, kinds.get(kind).spec)
        return {"field": ".".join(filter(None, ["spec", path])), "message": message, "suggestions": near}
    near, message = [], _message(error)
    if error["type"] == "extra_forbidden":
        near = wording.closest(str(steps[-1]), BODY_FIELDS)
    elif error["type"] in ("literal_error", "enum"):
        near = wording.closest(str(error["input"]), error["ctx"]["expected"].split("'")[1::2])
    return {"field": ".".join(map(str, steps)), "message": message + wording.hint(near), "suggestions": near}


def _message(error: Any) -> str:
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in SHAPES:
        return SHAPES[error["ctx"]["pattern"]]
    return wording.plain(error)


def _problem(request: Request, error: Problem) -> Problem:
    return error


def _invalid(request: Request, error: RequestValidationError) -> Problem:
    if isinstance(error.body, bytes):
        detail = "Send JSON with the header `Content-Type: application/json`."
        return Problem(415, "unsupported-media-type", "Unsupported media type", detail)
    body = error.body if isinstance(error.body, dict) else {}
    return from_validation(error.errors(), str(body.get("kind", "")))


def _unfit(request: Request, error: UserError) -> Problem:
    """A study that finds at submission that it cannot be planned."""
    return Problem(422, "invalid-spec", "Invalid spec", str(error))


def _gone(request: Request, error: ClientDisconnect) -> Problem:
    """The caller hung up in the middle of a body. Nobody reads this answer, but `/metrics` counts it as a refusal."""
    return Problem(400, "incomplete-body", "Incomplete body", "The connection ended before the body did.")


def _database(request: Request, error: DBAPIError) -> Problem:
    """A database that is away is not the caller's fault and passes; a value that it cannot hold is the caller's."""
    if problem := storage_problem(error):
        return problem
    if away(error):
        log.warning("the database is away: %s", str(error.orig).splitlines()[0])
        if request.method == "POST" and "idempotency-key" not in request.headers:
            detail = "The database went away; whether the request took effect is not known."
            return Problem(500, "outcome-unknown", "Outcome unknown", detail)
        detail = "The database does not answer at the moment; try again."
        return Problem(503, "not-ready", "Not ready", detail, retry_after=2)
    if isinstance(error, DataError):
        detail = "The request holds a character or a number that cannot be stored."
        return Problem(422, "invalid-request", "Invalid request", detail)
    raise error


def _storage(request: Request, error: OSError) -> Problem:
    """A disk that is full is the server's fault, and says so; anything else is unexpected."""
    if problem := storage_problem(error):
        return problem
    raise error


def _routing(request: Request, error: HTTPException) -> Problem:
    slug, title = ROUTING.get(error.status_code, ("invalid-request", "Invalid request"))
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers or {}
    return Problem(error.status_code, slug, title, str(error.detail), headers=headers)


def _allowed(request: Request) -> str:
    """The methods that some route of this path has."""
    scope = {"type": "http", "path": request.url.path, "root_path": "", "headers": []}
    routes = request.app.routes
    return ", ".join(
        method
        for method in ("DELETE", "GET", "HEAD", "POST")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    )


def unexpected(scope: Scope, error: Exception) -> Response:
    """500 without internals. The log has the traceback under the same request id."""
    request_id = scope["request_id"]
    log.error("request %s: %s %s failed", request_id, scope["method"], scope["path"], exc_info=error)
    detail = f"Something went wrong here; the log has it under request {request_id}."
    return respond(Problem(500, "internal-error", "Internal error", detail, request_id=request_id))
