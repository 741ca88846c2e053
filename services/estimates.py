"""How long a job will take: its work by its kind's own estimate, at the speed that this service reached lately."""

import logging
import statistics
from collections.abc import Collection, Mapping, Sequence
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
Measured = tuple[float, float]
"""Units of work, and the seconds that they took."""
RECENT = 40
"""Executions whose times are looked at."""
LEAST_SECONDS = 1e-3
APART = 1.5
"""Ratio of the largest job to the smallest from which their times tell a fixed part."""
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


def speeds(session: Session, names: Collection[str], device: str) -> dict[str, Speed | None]:
    """The speed of recent executions of some kinds on a device; None of a kind without any."""
    measured = {name: _measured(session, name, device) for name in names}
    if all(_spread(pairs) for pairs in measured.values()):
        return {name: fit(pairs) for name, pairs in measured.items()}
    others = [_measured(session, name, device) for name in kinds.names() if name not in names]
    known = [speed.per_unit for pairs in (*measured.values(), *others) if _spread(pairs) and (speed := fit(pairs))]
    per_unit = statistics.median(known) if known else None
    return {name: fit(pairs, per_unit) for name, pairs in measured.items()}


def _measured(session: Session, kind: str, device: str) -> list[Measured]:
    """Units and seconds of recent executions."""
    seconds = Attempt.ended_at - Attempt.started_at
    query = (
        select(Execution.work, seconds)
        .join(Attempt, (Attempt.execution_id == Execution.id) & (Attempt.number == Execution.attempt))
        .where(Execution.kind == kind, Execution.device == device, Execution.finished_at.is_not(None))
        .where(Execution.state == State.SUCCEEDED, Execution.work.is_not(None), Execution.resume.is_(None))
        .order_by(Execution.finished_at.desc())
        .limit(RECENT)
    )
    return [
        (float(work["units"]), max(float(taken), LEAST_SECONDS))
        for work, taken in session.execute(query)
        if work and work.get("units") and taken is not None
    ]


def _spread(measured: Sequence[Measured]) -> bool:
    """Whether the sizes of some jobs differ enough to tell a fixed part of their time from a part per unit."""
    units = [units for units, _ in measured]
    return bool(units) and max(units) >= APART * min(units)


def fit(measured: Sequence[Measured], per_unit: float | None = None) -> Speed | None:
    """The line through pairs of units and seconds with the least sum of relative errors, which outliers hardly move.

    Neither part of it is negative, so it goes through two of the pairs, or through the origin and one. Jobs of about
    one size do not tell the parts apart: their time beyond `per_unit`, which is what a unit takes jobs of other kinds,
    is fixed. Where that is not known, either, all of their time counts as time per unit.
    """
    if not measured:
        return None
    most = max(units for units, _ in measured)
    if per_unit is not None and not _spread(measured):
        fixed = statistics.median(seconds - per_unit * units for units, seconds in measured)
        if fixed >= 0:
            return Speed(fixed, per_unit, most)
    lines = [(0.0, seconds / units) for units, seconds in measured]
    for pair in combinations(measured, 2):
        if _spread(pair):
            (units, seconds), (other_units, other_seconds) = pair
            slope = (other_seconds - seconds) / (other_units - units)
            lines.append((seconds - slope * units, slope))
    speeds = [Speed(*line, most) for line in lines if line[0] >= 0 and line[1] > 0]
    errors = [sum(abs(speed.seconds(units) / seconds - 1) for units, seconds in measured) for speed in speeds]
    return speeds[errors.index(min(errors))]


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
        cells.setdefault(job.child or "job", []).append(job)
    reached = speeds(session, {job.kind for job in planned.jobs}, device)
    return _together(planned, reached), {name: _together(Planned(jobs), reached) for name, jobs in cells.items()}


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
