"""Job kinds as request models and documents, made from the registry once."""

from collections.abc import Mapping, Sequence
from functools import cache, reduce
from math import isfinite
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model
from pydantic_core import to_jsonable_python

from api import schemas
from husai_core import kinds, spec_summary, wording
from husai_core.kinds.kind import Kind, Port
from services.problems import Problem


@cache
def request_model() -> Any:
    """The union of all kinds' requests, told apart by `kind`, so that OpenAPI documents every spec."""
    models = [_request(kind) for kind in kinds.all_kinds()]
    return Annotated[reduce(or_, models), Field(discriminator="kind")] if len(models) > 1 else models[0]


def _request(kind: Kind) -> type[BaseModel]:
    title = "".join(word.title() for word in kind.name.replace(".", "_").split("_"))
    name: Any = Literal[(kind.name, *(old for old, new in kinds.ALIASES.items() if new == kind.name))]
    spec = create_model(f"{title}Spec", __base__=kind.spec, __doc__=kind.spec.__doc__)
    return create_model(
        f"{title}Request",
        __base__=schemas.JobRequest,
        __doc__=kind.help,
        kind=(name, ...),
        spec=(spec, Field(default={}, validate_default=True)),
    )


@cache
def document(name: str) -> schemas.Kind:
    """A kind's document.

    Raises:
        Problem: 404 `unknown-kind`.
    """
    try:
        kind = kinds.get(name)
    except KeyError:
        raise unknown(404, name, list(kinds.names())) from None
    return schemas.Kind(
        name=kind.name, help=kind.help, queue=kind.queue, is_study=kind.is_study,
        spec_schema=kind.spec.model_json_schema(), result_schema=kind.result.model_json_schema(),
        inputs={name: _port(port) for name, port in kind.inputs.items()},
        outputs={name: _port(port) for name, port in kind.outputs.items()},
        presets=to_jsonable_python(dict(kind.presets)),
        statistics={name: (_limit(low), _limit(high)) for name, (low, high) in kind.statistics.items()},
    )  # fmt: skip


def _limit(end: float) -> float | None:
    """An end of a range, as JSON has no infinity."""
    return end if isfinite(end) else None


def summary(name: str, spec: Mapping[str, Any]) -> str:
    """What a spec changes of its kind's defaults; nothing where the kind is no longer known."""
    try:
        return spec_summary.summary(spec, document(name).spec_schema)
    except Problem:
        return ""


def unknown(status: int, name: str, known: Sequence[str]) -> Problem:
    """The refusal of a name that no kind has, with the names that may have been meant."""
    near = wording.closest(name, known)
    detail = f"There is no kind {name[:80]!r}{wording.hint(near) or '.'} The kinds are {', '.join(known)}."
    return Problem(status, "unknown-kind", "Unknown kind", detail, known=known, suggestions=near)


def _port(port: Port) -> schemas.PortDocument:
    return schemas.PortDocument(
        type=port.type, help=port.help, many=port.many, required=port.required, at_least=port.at_least
    )
