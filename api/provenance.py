"""What a job and the jobs of a study ran on, read and wrote, and how to repeat it, as panels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from husai_core.panels import Cell, Column, Table
from services.artifacts import Store, read_json
from services.problems import Problem
from services.queries.jobs import JobView
from services.states import State

Manifest = Mapping[str, Any]


def manifest_of(store: Store, outputs: Mapping[str, Sequence[str]]) -> Manifest:
    """The manifest among a job's outputs; empty when there is none to be read."""
    for digest in outputs.get("manifest", ()):
        try:
            return dict(read_json(store, digest, "manifest.json"))
        except (Problem, KeyError, ValueError, OSError):
            continue
    return {}


def environment(manifests: Mapping[str, Manifest]) -> Table:
    """What the named jobs ran on: one value where all agree, otherwise each value with the jobs that have it."""
    values: dict[str, dict[str, list[str]]] = {}
    for job, manifest in manifests.items():
        for fact, value in surroundings(manifest).items():
            if value:
                values.setdefault(fact, {}).setdefault(value, []).append(job)
    rows: list[list[Cell]] = [[fact, _agreed(jobs)] for fact, jobs in values.items()]
    seeds = "; ".join(_seeds(manifests))
    if seeds:
        rows.append(["seeds", seeds])
    return Table(title="Environment", columns=[Column(label=""), Column(label="")], rows=rows)


def _agreed(jobs: Mapping[str, Sequence[str]]) -> str:
    if len(jobs) == 1:
        return next(iter(jobs))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in jobs.items())


def surroundings(manifest: Manifest) -> dict[str, str]:
    """The facts of a manifest on which repetition depends, in words; empty where unknown."""
    capability, git = _mapping(manifest, "capability"), _mapping(manifest, "git")
    cpu, cuda, blas = (_mapping(capability, name) for name in ("cpu", "cuda", "blas"))
    dirty = git.get("dirty")
    state = "" if dirty is None else ", with uncommitted changes" if dirty else ", clean"
    libraries = _mapping(capability, "libraries")
    return {
        "commit": f"{git['commit']}{state}" if git.get("commit") else "",
        "device": _joined(" ", capability.get("device"), cuda.get("device")),
        "CPU": _joined(", ", cpu.get("model"), cpu.get("capability")),
        "threads": _joined("", capability.get("threads")),
        "Python": _joined(" on ", capability.get("python"), capability.get("platform")),
        "libraries": ", ".join(f"{name} {version}" for name, version in libraries.items()),
        "NumPy BLAS": _joined("", blas.get("numpy")),
        "dependency lock": _joined("", capability.get("lock")),
        "installed packages": _joined("", capability.get("environment")),
    }


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _joined(separator: str, *values: Any) -> str:
    return separator.join(str(value) for value in values if value not in (None, ""))


def _seeds(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    for job, manifest in manifests.items():
        for field, value in _mapping(manifest, "seeds").items():
            numbers = " ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{job}: {field} {numbers}"


def digests(family: Mapping[str, JobView]) -> Table:
    """Every artifact that went into or came out of the named jobs."""
    rows: list[list[Cell]] = []
    for name, view in family.items():
        inputs = view.execution.inputs if view.execution else {}
        for direction, ports in (("in", inputs), ("out", view.outputs)):
            rows += [[name, direction, port, sha256] for port, some in ports.items() for sha256 in some]
    labels = ("job", "", "port", "SHA-256")
    return Table(title="Artifacts by digest", folded=True, columns=[Column(label=label) for label in labels], rows=rows)


def stages(family: Mapping[str, JobView]) -> Table:
    """State of each of the named jobs."""
    rows: list[list[Cell]] = [
        [name, view.job.kind, str(view.job.state), view.job.id, view.job.detail or view.job.reason or ""]
        for name, view in family.items()
    ]
    labels = ("job", "kind", "state", "id", "")
    return Table(title="Jobs", columns=[Column(label=label) for label in labels], rows=rows)


def commands(job_id: str, state: State) -> dict[str, str]:
    """What a reader types to repeat and to check, by its purpose."""
    always = {
        "Write this page": f"husai report {job_id}",
        "Show the job": f"husai show {job_id}",
    }
    if not state.final:
        return {"Follow it": f"husai watch {job_id}", "Stop it": f"husai cancel {job_id}", **always}
    if state != State.SUCCEEDED:
        return {"Submit the same again": f"husai retry {job_id}", **always}
    return {
        "Execute it again, reuse nothing, compare every artifact byte for byte": f"husai rerun {job_id} --check",
        "Write its artifacts as plain files": f"husai export {job_id} husai-{job_id[:8]}",
        **always,
    }
