"""How long a job will take: its work by its kind's own estimate, at the speed that this service reached lately."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core import kinds
from husai_core.kinds import plan_estimate
from husai_core.kinds.kind import BaseSpec, Facts, Work
from husai_core.kinds.plan_estimate import Planned, PlannedJob
from services.states import State
from services.tables import Attempt, Execution

log = logging.getLogger("husai.estimates")
RECENT = 40
"""Executions whose times are looked at."""
LEAST_SECONDS = 1e-3
FAR = 3.0
"""How many times the most work that was measured is an extrapolation that is to be named."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a job as a fixed part and a part per unit of work; `most` is the most work that was measured."""

    fixed: float
    per_unit: float
    most: float

    def seconds(self, units: float) -> float:
        """How long some work takes."""
        return self.fixed + self.per_unit * units


def speed(session: Session, kind: str, device: str) -> Speed | None:
    """The speed of recent executions of a kind on a device; None without any."""
    seconds = Attempt.ended_at - Attempt.started_at
    query = (
        select(Execution.work, seconds)
        .join(Attempt, (Attempt.execution_id == Execution.id) & (Attempt.number == Execution.attempt))
        .where(Execution.kind == kind, Execution.device == device, Execution.finished_at.is_not(None))
        .where(Execution.state == State.SUCCEEDED, Execution.work.is_not(None), Execution.resume.is_(None))
        .order_by(Execution.finished_at.desc())
        .limit(RECENT)
    )
    return fit(
        [
            (float(work["units"]), max(float(taken), LEAST_SECONDS))
            for work, taken in session.execute(query)
            if work and work.get("units") and taken is not None
        ]
    )


def fit(measured: Sequence[tuple[float, float]]) -> Speed | None:
    """The line through pairs of units and seconds with the least sum of relative errors, which outliers hardly move.

    Neither part of it is negative, so it goes through two of the pairs, or through the origin and one. Jobs of one
    size do not tell the parts apart: then all of their time counts as time per unit.
    """
    lines = [(0.0, seconds / units) for units, seconds in measured]
    for (units, seconds), (other_units, other_seconds) in combinations(measured, 2):
        if units != other_units:
            slope = (other_seconds - seconds) / (other_units - units)
            lines.append((seconds - slope * units, slope))
    speeds = [Speed(*line, max(units for units, _ in measured)) for line in lines if line[0] >= 0 and line[1] > 0]
    errors = [sum(abs(speed.seconds(units) / seconds - 1) for units, seconds in measured) for speed in speeds]
    return speeds[errors.index(min(errors))] if speeds else None


@dataclass(frozen=True)
class Forecast:
    """What jobs will take together. `seconds` on the device, one after the other; None where a speed is not known."""

    units: float
    seconds: float | None
    at_most: bool
    memory_bytes: float
    written_bytes: float
    basis: str


def forecast(
    session: Session, kind: str, spec: BaseSpec | Mapping[str, Any], facts: Facts, device: str
) -> tuple[Forecast, dict[str, Forecast]]:
    """What a request will take as a whole, and each of its cells: a study's children by name, or `job`.

    A study is the sum of the jobs that are known beforehand, each at the speed of its own kind.
    """
    cells: dict[str, list[PlannedJob]] = {}
    planned = plan_estimate.jobs(kind, spec, facts)
    for job in planned.jobs:
        cells.setdefault(job.path.partition("/")[0] or "job", []).append(job)
    speeds = {name: speed(session, name, device) for name in {job.kind for job in planned.jobs}}
    return _together(planned, speeds), {name: _together(Planned(jobs), speeds) for name, jobs in cells.items()}


def _together(planned: Planned, speeds: Mapping[str, Speed | None]) -> Forecast:
    works = [job.work for job in planned.jobs]
    timed = [(job.work.units, speeds[job.kind]) for job in planned.jobs if job.work.units]
    seconds = [speed.seconds(units) for units, speed in timed if speed]
    return Forecast(
        units=sum(work.units for work in works),
        seconds=sum(seconds) if len(seconds) == len(timed) else None,
        at_most=any(work.at_most for work in works),
        memory_bytes=max((work.memory_bytes for work in works), default=0.0),
        written_bytes=sum(work.written_bytes for work in works),
        basis=_basis(planned, speeds),
    )


def _basis(planned: Planned, speeds: Mapping[str, Speed | None]) -> str:
    """What the time rests on, and what it leaves out."""
    unknown = sorted({job.kind for job in planned.jobs if job.work.units and not speeds[job.kind]})
    ratios = [job.work.units / speed.most for job in planned.jobs if (speed := speeds[job.kind])]
    basis = f"no {', '.join(unknown)} has finished here yet" if unknown else "speeds measured here lately"
    if max(ratios, default=0.0) > FAR:
        basis += f", on jobs with at most 1/{max(ratios):.3g} of the work"
    return basis + (", and later rounds, which depend on results, are not counted" if planned.more else "")


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


def work_done(work: Work, progress: Mapping[str, Any] | None) -> Work:
    """The work that a job has done, by its last progress: less than all of it where it stopped early."""
    if not work.at_most or not progress or not progress.get("total"):
        return work
    return work.model_copy(update={"units": work.units * progress["done"] / progress["total"]})
