"""What is known about a job's inputs before it runs: what artifacts say of themselves, and what jobs are to make."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from husai_core.kinds import plan_estimate
from services import lifecycle
from services.artifacts import Store, read_index
from services.jobs import Reference
from services.problems import Problem
from services.states import State
from services.tables import Job

log = logging.getLogger("husai.estimates")
DEPTH = 8
"""Jobs in a row, each waiting for the next, through which outputs are foretold."""
Fact = Mapping[str, Any]


def of(
    session: Session, store: Store, inputs: Mapping[str, Sequence[Reference]], depth: int = DEPTH
) -> dict[str, list[Fact]]:
    """What is known about each artifact that is bound to each port; empty where that is nothing.

    Of a job that has not ended it is what its kind's estimate says about its outputs.
    """
    return {
        port: [fact for reference in references for fact in _facts(session, store, reference, depth)]
        for port, references in inputs.items()
    }


def of_artifacts(store: Store, inputs: Mapping[str, Sequence[str]]) -> dict[str, list[Fact]]:
    """The same of artifacts that exist: the `cfg.json` of each, or an upload's size in bytes."""
    return {port: [_artifact(store, digest) for digest in digests] for port, digests in inputs.items()}


def _facts(session: Session, store: Store, reference: Reference, depth: int) -> list[Fact]:
    if isinstance(reference, str):
        return [_artifact(store, reference)]
    job, output, index = session.get_one(Job, reference["job"]), reference["output"], reference.get("index")
    if job.state == State.SUCCEEDED:
        facts = [_artifact(store, digest) for digest in lifecycle.outputs(session, job).get(output, [])]
    else:
        facts = _foretold(session, store, job, output, depth) if depth else []
    chosen = facts if index is None else facts[index : index + 1]
    return chosen or [{}]


def _foretold(session: Session, store: Store, job: Job, output: str, depth: int) -> list[Fact]:
    """What a job's estimate says about an output; nothing of a study's. One that fails is no reason to refuse."""
    try:
        planned = plan_estimate.jobs(job.kind, job.spec, of(session, store, job.inputs, depth - 1)).jobs
    except Exception as error:
        log.warning("no estimate for %s: %s: %s", job.kind, type(error).__name__, error)
        return []
    fact = planned[0].work.outputs.get(output, {}) if len(planned) == 1 else {}
    return [fact] * int(fact.get("count", 1))


def _artifact(store: Store, digest: str) -> Fact:
    try:
        index = read_index(store, digest)
        if index["type"] == "upload":
            return {"size": sum(entry["size"] for entry in index["files"].values())}
        entry = index["files"].get("cfg.json")
        content = json.loads(store.read(entry["sha256"])) if entry else {}
    except (Problem, OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
