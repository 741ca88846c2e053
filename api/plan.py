"""What a submission would run, without running it."""

from sqlalchemy.orm import Session

from api import schemas
from husai_core.kinds.kind import Child, From
from services import jobs
from services.jobs import Reference, Submission
from services.problems import Problem


def plan(session: Session, submission: Submission) -> schemas.Plan:
    """What a submission would run: a study's first round where its inputs are known, else the job itself.

    Raises:
        Problem: the submission would be refused.
    """
    kind = jobs.find_kind(submission.kind)
    spec = jobs.validate_spec(kind, submission.spec, session)
    missing = []
    try:
        jobs.check_inputs(session, kind, spec, submission.inputs)
    except Problem as problem:
        if problem.slug != "missing-input":
            raise
        missing.append(problem.detail)
    inputs = {port: [one for one in many if isinstance(one, str)] for port, many in submission.inputs.items()}
    if missing or not kind.is_study or inputs != submission.inputs:
        cell = schemas.Cell(name="job", kind=kind.name, spec=spec.model_dump(mode="json"), inputs=submission.inputs)
        return schemas.Plan(cells=[cell], estimate=None, missing=missing)
    children = kind.next_children(spec, inputs, {})
    return schemas.Plan(cells=[_cell(child) for child in children], estimate=None, missing=[])


def _cell(child: Child) -> schemas.Cell:
    inputs = {port: [_input(one) for one in many] for port, many in child.inputs.items()}
    return schemas.Cell(name=child.name, kind=child.kind, spec=dict(child.spec), inputs=inputs)


def _input(one: str | From) -> Reference:
    return one if isinstance(one, str) else {"from": one.child, "output": one.output, "index": one.index}
