"""Runs jobs and studies in this process, as a worker would, with nothing but files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from husai_core import identity, kinds
from husai_core.errors import UserError
from husai_core.job import Artifact, ArtifactType, Inputs
from husai_core.kinds.kind import Child, Done, From


@dataclass
class FolderJob:
    """A job whose outputs are folders."""

    folder: Path
    device: str = "cpu"
    resume: Path | None = None
    draining: bool = False
    lines: list[str] = field(default_factory=list)
    made: list[tuple[str, ArtifactType, Path]] = field(default_factory=list)

    def progress(self, done: float, total: float, unit: str) -> None:
        assert 0 <= done <= total

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        assert step >= 0

    def log(self, line: str) -> None:
        self.lines.append(line)

    def output(self, name: str, type: ArtifactType) -> Path:
        path = self.folder / f"{len(self.made):03d}-{name}"
        path.mkdir(parents=True)
        self.made.append((name, type, path))
        return path

    def checkpoint(self) -> Path:
        path = self.folder / f"checkpoint-{len(list(self.folder.glob('checkpoint-*')))}"
        path.mkdir(parents=True)
        return path

    def commit_checkpoint(self, path: Path) -> None:
        self.resume = path


@dataclass
class Executor:
    """Executes kinds below `folder` and remembers every artifact by digest."""

    folder: Path
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    made: dict[str, Done] = field(default_factory=dict)
    done: dict[str, Done] = field(default_factory=dict)

    def keep(self, type: ArtifactType, path: Path) -> str:
        """Register a folder as an artifact."""
        files = {
            file.name: {"sha256": identity.sha256(file.read_bytes()), "size": file.stat().st_size}
            for file in path.iterdir()
        }
        digest = identity.digest({"type": type, "files": files})
        self.artifacts.setdefault(digest, Artifact(digest, type, path, [1_769_860_000.0]))
        return digest

    def run(self, kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Sequence[str]]) -> Done:
        """Run one job, or take the stored outcome of an equal one."""
        found = kinds.get(kind)
        full = found.spec.model_validate(dict(spec))
        key = kinds.job_digest(kind, full.model_dump(mode="json"), inputs, "cpu")
        if key not in self.made:
            self.made[key] = self._execute(kind, full, inputs, FolderJob(self.folder / key[:16]))
        return self.made[key]

    def _execute(self, kind: str, spec: Any, inputs: Mapping[str, Sequence[str]], job: FolderJob) -> Done:
        found = kinds.get(kind)
        bound = Inputs({port: [self.artifacts[digest] for digest in digests] for port, digests in inputs.items()})
        try:
            if found.is_study:
                done = self.children(found.next_children(spec, dict(inputs), {}))
                assert found.next_children(spec, dict(inputs), done) == []
                self.done = done
                result = found.sum_up(spec, bound, done, job)
            else:
                result = found.execute(spec, bound, job)
        except UserError as error:
            return Done("failed", str(error))
        document = {
            "kind": kind,
            "spec": spec.model_dump(mode="json"),
            "inputs": {port: list(digests) for port, digests in inputs.items()},
            "code": kinds.code_digest(kind),
            "device": "cpu",
            "result": result.model_dump(mode="json"),
        }
        (job.output("result", "result") / "result.json").write_bytes(identity.canonical(document))
        outputs: dict[str, list[str]] = {}
        for name, type_, path in job.made:
            outputs.setdefault(name, []).append(self.keep(type_, path))
        return Done("succeeded", None, document["result"], outputs)

    def children(self, planned: Sequence[Child]) -> dict[str, Done]:
        """Run children in the order planned, which must be one in which every sibling comes before its use."""
        done: dict[str, Done] = {}
        for child in planned:
            ported = {port: [d for one in given for d in _digests(one, done)] for port, given in child.inputs.items()}
            missing = [one.child for given in child.inputs.values() for one in given if isinstance(one, From)
                       and done[one.child].state != "succeeded"]  # fmt: skip
            done[child.name] = (
                Done("failed", f"needs {missing[0]}") if missing else self.run(child.kind, child.spec, ported)
            )
        return done


def _digests(one: str | From, done: Mapping[str, Done]) -> list[str]:
    if isinstance(one, str):
        return [one]
    found = list(done[one.child].outputs.get(one.output, []))
    return found if one.index is None else found[one.index : one.index + 1]
