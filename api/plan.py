"""What a submission would run and what that would take, without running it."""

import logging
from collections.abc import Iterator, Mapping

from sqlalchemy.orm import Session

from api import schemas
from api.deps import Context
from api.submission import refuse_unfit
from husai_core import assets
from husai_core.errors import UserError
from husai_core.kinds.kind import BaseSpec, Child, Facts, From, Kind
from services import estimates, input_facts, jobs
from services.estimates import Forecast
from services.jobs import Reference, Submission
from services.problems import Problem

log = logging.getLogger("husai.api")
Forecasts = tuple[Forecast | None, Mapping[str, Forecast]]


def plan(context: Context, session: Session, submission: Submission) -> schemas.Plan:
    """What a submission would run: a study's first round where its inputs are known, else the job itself.

    Raises:
        Problem: the submission would be refused.
        UserError: a study cannot be planned from this spec.
    """
    kind = jobs.find_kind(submission.kind)
    spec = jobs.validate_spec(kind, submission.spec, session)
    missing: list[str | schemas.Asset] = []
    try:
        jobs.check_inputs(session, kind, spec, submission.inputs)
    except Problem as problem:
        if problem.slug != "missing-input":
            raise
        missing.append(problem.detail)
    facts = input_facts.of(session, context.store, submission.inputs)
    refuse_unfit(kind, spec, facts)
    device = context.settings.device_class if submission.device == "auto" else submission.device
    whole, parts = (None, {}) if missing else _forecast(session, kind, spec, facts, device)
    if kind.is_study and not missing:
        bound = {port: [_label(source) for source in sources] for port, sources in submission.inputs.items()}
        cells = [cell for child in kind.next_children(spec, bound, {}) for cell in _cells(child, parts)]
    else:
        document = spec.model_dump(mode="json")
        cells = [schemas.Cell(name="job", kind=kind.name, spec=document, inputs=submission.inputs)]
        cells[0].estimate = _estimate(whole)
    return schemas.Plan(cells=cells, estimate=_estimate(whole), missing=[*missing, *_absent(cells)])


def _forecast(session: Session, kind: Kind, spec: BaseSpec, facts: Facts, device: str) -> Forecasts:
    """What all of it will take, and each cell; nothing where that cannot be said, which is no reason to refuse."""
    try:
        return estimates.forecast(session, kind.name, spec, facts, device)
    except UserError:
        raise
    except Exception as error:
        log.warning("no estimate for %s: %s: %s", kind.name, type(error).__name__, error)
        return None, {}


def _cells(child: Child, forecasts: Mapping[str, Forecast]) -> Iterator[schemas.Cell]:
    """A child of a study, and below a study inside it that study's own children, in its first round."""
    inputs = {port: [_input(source) for source in sources] for port, sources in child.inputs.items()}
    estimate = _estimate(forecasts.get(child.name))
    yield schemas.Cell(name=child.name, kind=child.kind, spec=dict(child.spec), inputs=inputs, estimate=estimate)
    kind = jobs.find_kind(child.kind)
    if not kind.is_study:
        return
    bound = {port: [_label(source) for source in sources] for port, sources in child.inputs.items()}
    for inner in kind.next_children(kind.spec.model_validate(child.spec), bound, {}):
        below = {port: [_input(source) for source in sources] for port, sources in inner.inputs.items()}
        yield schemas.Cell(name=f"{child.name}/{inner.name}", kind=inner.kind, spec=dict(inner.spec), inputs=below)


def _input(source: str | From) -> Reference:
    if isinstance(source, str):
        return source
    return {"from": source.child, "output": source.output, "index": source.index}


def _label(source: Reference | From) -> str:
    """What stands for an artifact that is not there yet: the job, or the study's child, and its output."""
    if isinstance(source, str):
        return source
    if isinstance(source, From):
        job, output, index = source.child, source.output, source.index
    else:
        job, output, index = source["job"], source["output"], source.get("index")
    return f"{job}.{output}" + ("" if index is None else f"[{index}]")


def _estimate(forecast: Forecast | None) -> schemas.Estimate | None:
    return None if forecast is None else schemas.Estimate(**vars(forecast))


def _absent(cells: list[schemas.Cell]) -> list[schemas.Asset]:
    """What the cells read beside their inputs and this host does not have."""
    names: set[str] = set()
    for cell in cells:
        kind = jobs.find_kind(cell.kind)
        if kind.assets is not None:
            names |= set(kind.assets(kind.spec.model_validate(cell.spec)))
    return [schemas.Asset(**vars(assets.asset(name))) for name in sorted(names) if not assets.is_present(name)]
