"""How long a job will take: its work by its kind's own estimate, at the speed that this service reached lately."""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core import kinds
from husai_core.kinds import plan_estimate
from husai_core.kinds.kind import BaseSpec, Facts, Work
from husai_core.kinds.plan_estimate import PlannedJob
from services.states import State
from services.tables import Attempt, Execution

log = logging.getLogger("husai.estimates")
RECENT = 20
"""Executions whose speeds are looked at."""
LEAST_SECONDS = 1e-3


def speed(session: Session, kind: str, device: str) -> float | None:
    """Units of work per second: the median over recent executions of a kind on a device; None without any."""
    seconds = Attempt.ended_at - Attempt.started_at
    query = (
        select(Execution.work, seconds)
        .join(Attempt, (Attempt.execution_id == Execution.id) & (Attempt.number == Execution.attempt))
        .where(Execution.kind == kind, Execution.device == device, Execution.finished_at.is_not(None))
        .where(Execution.state == State.SUCCEEDED, Execution.work.is_not(None), Execution.resume.is_(None))
        .order_by(Execution.finished_at.desc())
        .limit(RECENT)
    )
    speeds = [
        work["units"] / max(taken, LEAST_SECONDS)
        for work, taken in session.execute(query)
        if work and work.get("units") and taken is not None
    ]
    return statistics.median(speeds) if speeds else None


def seconds(session: Session, kind: str, device: str, work: Work | None) -> float | None:
    """How long some work of a kind will take on a device; None where that is not known yet."""
    per_second = speed(session, kind, device) if work is not None and work.units else None
    return work.units / per_second if work is not None and per_second else None


@dataclass(frozen=True)
class Forecast:
    """What jobs will take together. `seconds` on the device, one after the other; None where a speed is not known."""

    units: float
    seconds: float | None
    memory_bytes: float
    written_bytes: float
    basis: str


def forecast(
    session: Session, kind: str, spec: BaseSpec | Mapping[str, Any], facts: Facts, device: str
) -> tuple[Forecast, dict[str, Forecast]]:
    """What a request will take as a whole, and each of its cells: a study's children by name, or `job`.

    A study is the sum of the jobs that it plans at first, each at the speed of its own kind.
    """
    cells: dict[str, list[PlannedJob]] = {}
    planned = plan_estimate.jobs(kind, spec, facts)
    for job in planned:
        cells.setdefault(job.path.partition("/")[0] or "job", []).append(job)
    speeds = {name: speed(session, name, device) for name in {job.kind for job in planned}}
    return _together(planned, speeds), {name: _together(jobs, speeds) for name, jobs in cells.items()}


def _together(jobs: Sequence[PlannedJob], speeds: Mapping[str, float | None]) -> Forecast:
    works, measured = [job.work for job in jobs], [(job.work.units, speeds[job.kind]) for job in jobs]
    unknown = sorted({job.kind for job in jobs if job.work.units and not speeds[job.kind]})
    basis = f"no {', '.join(unknown)} has finished here yet" if unknown else "speeds measured here lately"
    return Forecast(
        units=sum(work.units for work in works),
        seconds=None if unknown else sum(units / per_second for units, per_second in measured if per_second),
        memory_bytes=max((work.memory_bytes for work in works), default=0.0),
        written_bytes=sum(work.written_bytes for work in works),
        basis=basis,
    )


def work_of(kind: str, spec: BaseSpec | Mapping[str, Any], facts: Facts) -> Work | None:
    """What a job of a kind will take; None where the kind cannot say. An estimate that fails is no reason to refuse."""
    declared = kinds.get(kind)
    if declared.estimate is None:
        return None
    try:
        parsed = spec if isinstance(spec, BaseSpec) else declared.spec.model_validate(spec)
        return declared.estimate(parsed, facts)
    except Exception as error:
        log.warning("no estimate for %s: %s: %s", kind, type(error).__name__, error)
        return None
