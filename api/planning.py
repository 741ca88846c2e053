"""From a request body to a submission, and what a submission would do."""

from sqlalchemy.orm import Session

from api import schemas
from husai_core.identity import canonical
from husai_core.kinds.base import Child, From
from services import jobs
from services.accounts import Principal
from services.jobs import Reference, Submission
from services.problems import Problem, invalid


def submission(body: schemas.JobRequest) -> Submission:
    """The submission that a validated body asks for. Only the fields that were given go into the spec.

    Raises:
        Problem: `invalid-spec`: a number has no canonical JSON, so the job would have no digest.
    """
    spec = body.spec.model_dump(mode="json", exclude_unset=True)
    try:
        canonical(spec)
    except ValueError as wrong:
        raise invalid("invalid-spec", "Invalid spec", f"spec: {wrong}") from None
    return Submission(
        body.kind, spec, {port: _references(given) for port, given in body.inputs.items()}, body.labels,
        body.priority, body.device, body.reuse == "allow",
    )  # fmt: skip


def _references(given: list[str | schemas.OutputOf] | str | schemas.OutputOf) -> list[Reference]:
    many = given if isinstance(given, list) else [given]
    return [one.model_dump() if isinstance(one, schemas.OutputOf) else one for one in many]


def check_visible(session: Session, principal: Principal, submission: Submission) -> None:
    """Refuse inputs that name a job which the caller may not see.

    Raises:
        Problem: `unknown-job`.
    """
    for references in submission.inputs.values():
        for reference in references:
            if isinstance(reference, dict):
                jobs.get(session, principal, reference["job"])


def plan(session: Session, submission: Submission) -> schemas.Plan:
    """What a submission would run: a study's first round where its inputs are known, else the job itself.

    Raises:
        Problem: the submission would be refused.
    """
    kind = jobs.find_kind(submission.kind)
    spec = jobs.validate_spec(kind, submission.spec, session)
    missing = []
    try:
        jobs.check_inputs(session, kind, submission.inputs)
    except Problem as problem:
        if problem.slug != "missing-input":
            raise
        missing.append(problem.detail)
    inputs = {port: [one for one in many if isinstance(one, str)] for port, many in submission.inputs.items()}
    if missing or not kind.is_study or inputs != submission.inputs:
        cell = schemas.Cell(name="job", kind=kind.name, spec=spec, inputs=submission.inputs)
        return schemas.Plan(cells=[cell], estimate=None, missing=missing)
    children = kind.module.plan(kind.spec.model_validate(spec), inputs, {})
    return schemas.Plan(cells=[_cell(child) for child in children], estimate=None, missing=[])


def _cell(child: Child) -> schemas.Cell:
    inputs = {port: [_input(one) for one in many] for port, many in child.inputs.items()}
    return schemas.Cell(name=child.name, kind=child.kind, spec=dict(child.spec), inputs=inputs)


def _input(one: str | From) -> Reference:
    return one if isinstance(one, str) else {"from": one.child, "output": one.output, "index": one.index}
