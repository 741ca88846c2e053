"""The job kinds, and for each a form made from its spec."""

import dataclasses
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from api import kinds as documents
from api import schemas
from api.deps import Context, Ctx
from api.errors import from_validation
from api.http import IDEMPOTENCY_KEY, NamePath
from api.pages import forms, schema_fields
from api.pages.shell import Form, Seen, Sent, Visitor, back_to, pages_router, render
from api.routes import jobs as v1
from husai_core import kinds
from husai_core.errors import UserError
from husai_core.kinds.kind import QUEUES
from husai_core.render import prose
from services import accounts, jobs
from services.problems import Problem, invalid
from services.queries import artifacts as artifact_queries
from services.queries import ids
from services.tables import ArtifactRow

router = pages_router()
PRIORITIES = ("interactive", "batch", "backfill", "gate")
DEVICES = ("auto", "cpu", "cuda")
RECENT = 12
OPTIONS = ("labels", "priority", "device", "reuse")


@dataclass
class Filled:
    """What stands in a form, and what is wrong with it. `errors` is by path; `problem` belongs to no field."""

    values: dict[str, str] = dataclasses.field(default_factory=dict)
    inputs: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    problem: str = ""
    plan: Mapping[str, Any] | None = None


@router.get("/kinds")
def listing(request: Request, visitor: Seen) -> Response:
    """Every job kind by family, with the question that it answers."""
    accounts.require(visitor.principal, "read")
    families: dict[str, list[schemas.Kind]] = {family: [] for family in QUEUES}
    for name in kinds.names():
        families[name.split(".")[0]].append(documents.document(name))
    return render(request, "kinds.html", title="New job", twin="/v1/kinds", families=families)


@router.get("/kinds/{kind}")
def show(
    request: Request,
    kind: NamePath,
    context: Ctx,
    visitor: Seen,
    preset: Annotated[str, Query(max_length=100)] = "",
    origin: Annotated[str, Query(alias="from", max_length=24)] = "",
) -> Response:
    """The form of a kind: empty, with a preset filled in, or with what an earlier job was asked."""
    accounts.require(visitor.principal, "read")
    document = documents.document(kind)
    fields = schema_fields.of_spec(document.spec_schema)
    filled = Filled()
    if preset in document.presets:
        named = any(field.path == "spec.preset" for field in fields)
        filled.values = {"spec.preset": preset} if named else forms.to_values(fields, document.presets[preset])
    elif origin:
        with context.database.read() as session:
            job = jobs.get(session, visitor.principal, ids.job(session, visitor.principal, origin))
        filled.values = forms.to_values(fields, job.spec) | {"labels": ", ".join(job.labels), "device": job.device}
        filled.inputs = {
            port: [forms.from_reference(reference) for reference in some] for port, some in job.inputs.items()
        }
    return _form(request, context, visitor, document, filled, preset=preset)


@router.post("/kinds/{kind}")
def submit(request: Request, kind: NamePath, context: Ctx, form: Sent) -> Response:
    """Submit what the form says, or show what it would run; what is wrong stands beside its field."""
    accounts.require(form.visitor.principal, "read")
    document = documents.document(kind)
    filled = _filled(document, form)
    spec, filled.errors = forms.to_spec(schema_fields.of_spec(document.spec_schema), filled.values)
    planning = form.get("action") == "plan"
    try:
        if not filled.errors:
            accounts.require(form.visitor.principal, "submit")
            body = _body(document, spec, filled)
            key = _once(form)
            answer = v1.submit(body, context, form.visitor.principal, None if planning else key, planning)
            if not planning:
                return back_to(answer.headers["Location"].removeprefix("/v1"))
            filled.plan = json.loads(bytes(answer.body))
    except Problem as problem:
        _explain(filled, problem)
    except UserError as wrong:
        filled.problem = str(wrong)
    status = 422 if filled.errors or filled.problem else 200
    return _form(request, context, form.visitor, document, filled, status)


def _once(form: Form) -> str | None:
    """The key that makes sending a form twice harmless.

    Raises:
        Problem: 422 `invalid-request`: no page of this server holds such a key.
    """
    key = form.get("once")
    if key and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise invalid("invalid-request", "Invalid request", "The form was changed on its way. Load it again.")
    return key or None


def _filled(document: schemas.Kind, form: Form) -> Filled:
    inputs = {port: form.all(f"inputs.{port}") for port in document.inputs}
    names = {name for name, _ in form.fields if name.startswith("spec.")} | set(OPTIONS)
    return Filled({name: form.get(name) for name in names}, inputs)


def _body(document: schemas.Kind, spec: Mapping[str, Any], filled: Filled) -> Any:
    """The request that the form stands for.

    Raises:
        Problem: 422, with the field of each fault.
    """
    request = {
        "kind": document.name,
        "spec": spec,
        "inputs": forms.to_inputs(list(document.inputs), filled.inputs),
        "labels": [label for label in filled.values["labels"].replace(",", " ").split() if label],
        "priority": filled.values["priority"] or "interactive",
        "device": filled.values["device"] or "auto",
        "reuse": filled.values["reuse"] or "allow",
    }
    try:
        return TypeAdapter(documents.request_model()).validate_python(request)
    except ValidationError as wrong:
        errors = [{**error, "loc": ("body", *error["loc"])} for error in wrong.errors()]
        raise from_validation(errors, document.name) from None


def _explain(filled: Filled, problem: Problem) -> None:
    """Put each fault beside its field; what belongs to none stands above the form."""
    for fault in problem.extra.get("errors", ()):
        path = fault["field"]
        filled.errors[path if path.startswith(("spec", "inputs", *OPTIONS)) else f"spec.{path}"] = fault["message"]
    if not filled.errors:
        filled.problem = problem.detail


def _form(
    request: Request,
    context: Context,
    visitor: Visitor,
    document: schemas.Kind,
    filled: Filled,
    status: int = 200,
    preset: str = "",
) -> Response:
    fields = schema_fields.of_spec(document.spec_schema)
    shown = set(_paths(fields)) | {f"inputs.{port}" for port in document.inputs} | set(OPTIONS)
    question, _, more = document.help.partition("\n")
    errors = {path.replace("|", "."): text for path, text in filled.errors.items()}
    return render(
        request, "kind.html", status,
        title=document.name, twin=f"/v1/kinds/{document.name}", kind=document, fields=fields, filled=filled,
        errors=errors, homeless={path: text for path, text in errors.items() if path not in shown},
        recent=_recent(context, visitor, {port.type for port in document.inputs.values()}),
        preset=preset, priorities=PRIORITIES, devices=DEVICES, once=secrets.token_urlsafe(18),
        question=question, more=list(prose.blocks(more)),
    )  # fmt: skip


def _paths(fields: Sequence[schema_fields.Field]) -> list[str]:
    """The paths of all fields that stand in a form, as messages name them."""
    paths = []
    for field in fields:
        paths += [field.path.replace("|", "."), *_paths(field.fields)]
    return paths


def _recent(context: Context, visitor: Visitor, types: set[str]) -> dict[str, list[ArtifactRow]]:
    """By type: the newest artifacts that the visitor may bind."""
    with context.database.read() as session:
        return {
            type: artifact_queries.page(session, context.settings, visitor.principal, type=type, limit=RECENT)[0]
            for type in sorted(types)
        }
