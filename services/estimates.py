"""How long a job will take: its work by its kind's own estimate, at the speed that this service reached lately."""

import json
import logging
import statistics
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core import kinds
from husai_core.kinds.kind import BaseSpec, Facts, Work
from services.artifacts import Store, read_index
from services.problems import Problem
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


def facts(store: Store, inputs: Mapping[str, list[str]]) -> dict[str, list[dict[str, Any]]]:
    """What is known about the artifacts bound to each port: the `cfg.json` of each, empty where it has none."""
    return {port: [_fact(store, digest) for digest in digests] for port, digests in inputs.items()}


def _fact(store: Store, digest: str) -> dict[str, Any]:
    try:
        entry = read_index(store, digest)["files"].get("cfg.json")
        content = json.loads(store.read(entry["sha256"])) if entry else {}
    except (Problem, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
