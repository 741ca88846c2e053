"""What a report is made of, read from the database and the artifact store into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.artifacts import Store, read_json
from services.problems import Problem
from services.tables import Decision, Execution, Job, Output, Result

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One job: the pipeline itself or a child. `result`, `manifest` and `outputs` are empty until it succeeded."""

    name: str
    kind: str
    job: str
    state: str
    reason: str | None = None
    detail: str | None = None
    spec: Json = field(default_factory=dict)
    inputs: Mapping[str, list[str]] = field(default_factory=dict)
    outputs: Mapping[str, list[str]] = field(default_factory=dict)
    result: Json = field(default_factory=dict)
    manifest: Json = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Args:
        pipeline: the job that the report is about.
        stages: its children by name, in the order of their creation.
        created_at: Unix time in seconds; `finished_at` is None while the pipeline is unfinished.
        decision: id of the gate's decision, and `seq`, its place in the log.
    """

    pipeline: Stage
    stages: Mapping[str, Stage]
    created_at: float
    finished_at: float | None = None
    decision: str | None = None
    seq: int | None = None

    def stage(self, name: str) -> Stage:
        """A child, or a stand-in in state `not planned`."""
        return self.stages.get(name) or Stage(name=name, kind="", job="", state="not planned")


def gather(session: Session, store: Store, job: Job) -> ReportData:
    """Read a pipeline job and what its children have left so far."""
    children = select(Job).where(Job.parent_id == job.execution_id, Job.parent_id.is_not(None)).order_by(Job.id)
    stages = {child.name or child.kind: _stage(session, store, child) for child in session.scalars(children)}
    gate = session.scalar(select(Job.execution_id).where(Job.id == stages["gate"].job)) if "gate" in stages else None
    decision = session.scalar(select(Decision).where(Decision.execution_id == gate))
    return ReportData(
        pipeline=_stage(session, store, job),
        stages=stages,
        created_at=job.created_at,
        finished_at=job.finished_at,
        decision=decision.id if decision else None,
        seq=decision.seq if decision else None,
    )


def _stage(session: Session, store: Store, job: Job) -> Stage:
    outputs: dict[str, list[str]] = {}
    query = select(Output).where(Output.execution_id == job.execution_id).order_by(Output.name, Output.position)
    for output in session.scalars(query):
        outputs.setdefault(output.name, []).append(output.sha256)
    execution = session.get(Execution, job.execution_id) if job.execution_id else None
    result = session.get(Result, job.execution_id) if job.execution_id else None
    return Stage(
        name=job.name or job.kind,
        kind=job.kind,
        job=job.id,
        state=str(job.state),
        reason=job.reason,
        detail=job.detail,
        spec=job.spec,
        inputs=execution.inputs if execution else {},
        outputs=outputs,
        result=result.result if result else {},
        manifest=_manifest(store, outputs),
    )


def _manifest(store: Store, outputs: Mapping[str, list[str]]) -> Json:
    for digest in outputs.get("manifest", []):
        try:
            return dict(read_json(store, digest, "manifest.json"))
        except (Problem, KeyError, ValueError):
            continue
    return {}


def dig(value: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of nested mappings, or `default`."""
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value


def part(value: Any, path: str) -> Json:
    """The mapping at a dotted path, or an empty one."""
    found = dig(value, path)
    return found if isinstance(found, Mapping) else {}


def real(value: Any) -> float | None:
    """A finite number as float, anything else as None."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def items(value: Any) -> list[Json]:
    """The mappings in a list, or nothing where there is no list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []
