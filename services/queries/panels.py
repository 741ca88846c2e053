"""What there is to see of a job: its kind's panels, and those of a study's children."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from husai_core import kinds, panels
from services.queries import jobs as job_queries
from services.states import State
from services.tables import Job


@dataclass(frozen=True)
class JobPanels:
    """A job's panels; there are none before it has a result.

    Args:
        name: the job's name inside its study, if a study asked for it.
        title: what question the kind answers.
        children: those of a study, in the order of their making, without children of their own.
    """

    job: str
    kind: str
    name: str | None
    title: str
    state: State
    panels: list[panels.AnyPanel]
    children: list["JobPanels"]


def of_job(session: Session, job: Job) -> JobPanels:
    """The panels of a job and of the children of a study."""
    family = [job, *job_queries.children(session, job)]
    ended = {member.execution_id for member in family if member.state == State.SUCCEEDED}
    results = job_queries.results_of(session, ended)
    children = [_of(child, results, []) for child in family[1:]]
    return _of(job, results, children)


def _of(job: Job, results: dict[str, dict[str, object]], children: list[JobPanels]) -> JobPanels:
    result = results.get(job.execution_id or "") if job.state == State.SUCCEEDED else None
    shown = [] if result is None else panels_of(job.kind, result)
    return JobPanels(job.id, job.kind, job.name, title(job.kind), job.state, shown, children)


def panels_of(kind: str, result: dict[str, object]) -> list[panels.AnyPanel]:
    """The panels of a result; its plain figures where no installed kind knows it."""
    try:
        return kinds.get(kind).panels(result)
    except KeyError:
        return list(panels.plain(result))


def title(kind: str) -> str:
    """The question that a kind answers, in one line; its name where it is not installed."""
    try:
        help = kinds.get(kind).help
    except KeyError:
        return kind
    return help.splitlines()[0] if help else kind
