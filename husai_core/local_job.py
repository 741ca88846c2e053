"""Running kinds in this process, with nothing but a folder: in a notebook, a script or a test.

`LocalJob` is what one running kind reports to. `LocalRunner` runs kinds, studies with all their children included, and
keeps what they make; whatever a folder already holds is not computed again, so an interrupted study goes on.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from husai_core import kinds
from husai_core.artifact_index import index_tree
from husai_core.errors import MissingAssets, UserError
from husai_core.evidence import BaseResult
from husai_core.identity import canonical, digest
from husai_core.job import Artifact, ArtifactType, Inputs
from husai_core.kinds.kind import BaseSpec, Child, Done, From, Kind
from husai_core.panels import AnyPanel
from husai_core.wording import closest, hint, validated

EVERY_SECONDS = 1.0
EVERY_SECONDS_IN_FILE = 30.0
"""How often progress is printed where every time is a line that stays."""
FINISHED = "job.json"
Source = str | Path | Artifact
"""An artifact, or the folder that holds one."""


class LocalJob:
    """A `Job` in a folder. It keeps what is reported and prints how far the work is, now and then, unless `quiet`."""

    def __init__(self, folder: Path, device: str = "cpu", resume: Path | None = None, quiet: bool = True) -> None:
        self.folder, self.device, self.resume, self.quiet = folder, device, resume, quiet
        self.draining = False
        self.reports: list[tuple[float, float]] = []
        self.curves: list[tuple[int, Mapping[str, float]]] = []
        self.lines: list[str] = []
        self.outputs: list[tuple[str, ArtifactType, Path]] = []
        self._printed = time.monotonic()

    def progress(self, done: float, total: float, unit: str) -> None:
        """Keep and print work done."""
        self.reports.append((done, total))
        rewrites = sys.stderr.isatty() or "ipykernel" in sys.modules
        every = EVERY_SECONDS if rewrites else EVERY_SECONDS_IN_FILE
        if not self.quiet and (time.monotonic() - self._printed > every or done >= total):
            self._printed = time.monotonic()
            start, end = ("\r", "\n" if done >= total else "") if rewrites else ("", "\n")
            print(f"{start}{done:,.0f} of {total:,.0f} {unit}", end=end, file=sys.stderr)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Keep one point of the curves."""
        self.curves.append((step, dict(values)))

    def log(self, line: str) -> None:
        """Keep and print a line."""
        self.lines.append(line)
        if not self.quiet:
            print(line, file=sys.stderr)

    def output(self, name: str, type: ArtifactType) -> Path:
        """A fresh folder for the next artifact of output `name`."""
        path = self.folder / f"{len(self.outputs):03d}-{name}"
        path.mkdir(parents=True)
        self.outputs.append((name, type, path))
        return path

    def checkpoint(self) -> Path:
        """A fresh folder for a resumable checkpoint."""
        path = self.folder / f"checkpoint-{time.monotonic_ns()}"
        path.mkdir(parents=True)
        return path

    def commit_checkpoint(self, path: Path) -> None:
        """Keep this checkpoint instead of the last one, so that a job that is run again goes on from it."""
        kept = self.folder / "checkpoint"
        shutil.rmtree(kept, ignore_errors=True)
        self.resume = path.rename(kept)


@dataclass(frozen=True, repr=False)
class LocalResult:
    """What a kind resulted in: its figures, and by output the artifacts that it wrote."""

    kind: str
    result: BaseResult
    outputs: Mapping[str, Sequence[Artifact]]
    job: LocalJob
    complete: bool = True
    """False for a study some of whose children did not succeed; when it is run again, it tries them again."""

    @property
    def paths(self) -> dict[str, list[Path]]:
        """The folders of its artifacts by output."""
        return {name: [artifact.path for artifact in artifacts] for name, artifacts in self.outputs.items()}

    @property
    def panels(self) -> list[AnyPanel]:
        """What there is to see."""
        return kinds.get(self.kind).panels(self.result.model_dump(mode="json"))

    def _repr_html_(self) -> str:
        from husai_core.render.notebook import Shown

        return Shown(self.panels)._repr_html_()

    def __repr__(self) -> str:
        from husai_core.render.notebook import Shown

        return repr(Shown(self.panels))


@dataclass
class LocalRunner:
    """Runs kinds below `folder`, each job in the folder of its digest."""

    folder: Path
    device: str = "cpu"
    quiet: bool = True
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    children: dict[str, Done] = field(default_factory=dict)
    """How the children of the study that was summed up last had ended."""
    _lacking: int = field(default=0, init=False)
    """How many children did not succeed, or are studies that lack some."""

    def run(self, kind: str, spec: Mapping[str, Any] | None = None, **inputs: Source | Sequence[Source]) -> LocalResult:
        """Run a kind and give back its result; `inputs` are artifacts, or their folders, by port.

        Raises:
            UserError: there is no such kind, the spec is not one of it, or the request cannot be met.
        """
        if kind not in (*kinds.names(), *kinds.ALIASES):
            meant = hint(closest(kind, kinds.names())) or f"; the kinds are {', '.join(kinds.names())}"
            raise UserError(f"there is no kind {kind!r}{meant}")
        declared = kinds.get(kind)
        if unknown := sorted(inputs.keys() - declared.inputs.keys()):
            raise UserError(f"{kind} has no input {', '.join(unknown)}; it has {', '.join(declared.inputs) or 'none'}")
        bound = {port: [self.keep(source, declared.inputs[port].type) for source in _listed(value)]
                 for port, value in inputs.items()}  # fmt: skip
        checked = validated(declared.spec, spec or {})
        return self._run(declared, checked, bound)

    def keep(self, source: Source, type: ArtifactType) -> str:
        """Register an artifact, or a folder as one; returns its digest."""
        artifact = source if isinstance(source, Artifact) else artifact_in(Path(source), type)
        return self.artifacts.setdefault(artifact.digest, artifact).digest

    def outcome(self, kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Sequence[str]]) -> Done:
        """Run a kind on known artifacts, as a study sees it: a UserError is a failure and not raised."""
        declared = kinds.get(kind)
        try:
            ended = self._run(declared, declared.spec.model_validate(dict(spec)), inputs)
        except UserError as error:
            self._lacking += 1
            return Done("blocked" if isinstance(error, MissingAssets) else "failed", str(error))
        self._lacking += not ended.complete
        outputs = {name: [artifact.digest for artifact in artifacts] for name, artifacts in ended.outputs.items()}
        return Done("succeeded", None, ended.result.model_dump(mode="json"), outputs)

    def _run(self, kind: Kind, spec: BaseSpec, inputs: Mapping[str, Sequence[str]]) -> LocalResult:
        _check_ports(kind, spec, inputs)
        document = spec.model_dump(mode="json")
        home = self.folder / kinds.job_digest(kind.name, document, inputs, self.device)[:16]
        if not ((home / FINISHED).is_file() and self._read(kind, home).complete):
            self._execute(kind, spec, inputs, home)
        return self._read(kind, home)

    def _execute(self, kind: Kind, spec: BaseSpec, inputs: Mapping[str, Sequence[str]], home: Path) -> None:
        """Run a job and write down what it made; what an interrupted one left is removed, but for its checkpoint."""
        resume = home / "checkpoint"
        for left in home.glob("*-*"):
            shutil.rmtree(left)
        lacking_before = self._lacking
        job = LocalJob(home, self.device, resume if resume.is_dir() else None, self.quiet)
        bound = Inputs({port: [self.artifacts[name] for name in digests] for port, digests in inputs.items()})
        result = self._study(kind, spec, bound, job) if kind.is_study else kind.execute(spec, bound, job)
        document = {
            "kind": kind.name,
            "spec": spec.model_dump(mode="json"),
            "inputs": {port: list(digests) for port, digests in inputs.items()},
            "code": kinds.code_digest(kind.name),
            "device": self.device,
            "result": result.model_dump(mode="json"),
        }
        (job.output("result", "result") / "result.json").write_bytes(canonical(document))
        outputs = [[name, type, path.name] for name, type, path in job.outputs]
        record: dict[str, Any] = {"result": document["result"], "outputs": outputs, "curves": job.curves}
        record |= {"lines": job.lines, "reports": job.reports, "complete": self._lacking == lacking_before}
        (home / FINISHED).write_text(json.dumps(record))
        shutil.rmtree(resume, ignore_errors=True)

    def _read(self, kind: Kind, home: Path) -> LocalResult:
        record = json.loads((home / FINISHED).read_bytes())
        job = LocalJob(home, self.device)
        job.outputs = [(name, type, home / path) for name, type, path in record["outputs"]]
        job.curves = [(step, values) for step, values in record["curves"]]
        job.lines, job.reports = record["lines"], [(done, total) for done, total in record["reports"]]
        outputs: dict[str, list[Artifact]] = {}
        for name, type_, path in job.outputs:
            outputs.setdefault(name, []).append(self.artifacts[self.keep(path, type_)])
        return LocalResult(
            kind.name, kind.result.model_validate(record["result"]), outputs, job, record.get("complete", True)
        )

    def _study(self, kind: Kind, spec: BaseSpec, inputs: Inputs, job: LocalJob) -> BaseResult:
        """Ask a study for children until it wants no more, and sum it up."""
        digests = {port: [artifact.digest for artifact in artifacts] for port, artifacts in inputs.ports.items()}
        done: dict[str, Done] = {}
        while planned := [child for child in kind.next_children(spec, digests, done) if child.name not in done]:
            self._round(planned, done, job)
        self.children = done
        return kind.sum_up(spec, inputs, done, job)

    def _round(self, planned: Sequence[Child], done: dict[str, Done], job: LocalJob) -> None:
        """Run children, each after the siblings whose outputs it takes."""
        waiting = list(planned)
        while waiting:
            ready = [child for child in waiting if _sources(child) <= done.keys()]
            if not ready:
                raise UserError(f"these children wait for each other: {', '.join(child.name for child in waiting)}")
            for child in ready:
                job.log(f"{child.name} ({child.kind})")
                done[child.name] = self._child(child, done)
                waiting.remove(child)

    def _child(self, child: Child, done: Mapping[str, Done]) -> Done:
        failed = [name for name in sorted(_sources(child)) if done[name].state != "succeeded"]
        if failed:
            return Done("failed", f"its input comes from {failed[0]}, which {done[failed[0]].state}")
        inputs = {
            port: [name for source in sources for name in _digests(source, done)]
            for port, sources in child.inputs.items()
        }
        return self.outcome(child.kind, child.spec, inputs)


def artifact_in(path: Path, type: ArtifactType) -> Artifact:
    """The artifact that a folder holds.

    Raises:
        UserError: there is no such folder, or nothing in it.
    """
    if not path.is_dir() or not any(path.iterdir()):
        raise UserError(f"{path} is not a folder that holds an artifact")
    return Artifact(digest(index_tree(type, path)), type, path, [path.stat().st_mtime])


def run(
    kind: str,
    spec: Mapping[str, Any] | None = None,
    folder: str | Path = "husai-jobs",
    device: str = "cpu",
    quiet: bool = False,
    **inputs: Source | Sequence[Source],
) -> LocalResult:
    """Run a job kind here, without a server, and keep what it makes below `folder`; see `LocalRunner.run`."""
    return LocalRunner(Path(folder), device, quiet).run(kind, spec, **inputs)


def _check_ports(kind: Kind, spec: BaseSpec, inputs: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError unless as many artifacts are bound as the kind takes."""
    spec.check_ports([port for port, digests in inputs.items() if digests])
    for name, port in kind.inputs.items():
        count = len(inputs.get(name, ()))
        if count < port.at_least and (port.required or count):
            raise UserError(f"input {name!r} of {kind.name} takes at least {port.at_least}, not {count}: {port.help}")
        if count > 1 and not port.many:
            raise UserError(f"input {name!r} of {kind.name} takes one artifact, not {count}")


def _listed(value: Source | Sequence[Source]) -> list[Source]:
    return [value] if isinstance(value, str | Path | Artifact) else list(value)


def _sources(child: Child) -> set[str]:
    """The siblings whose outputs a child takes."""
    return {source.child for sources in child.inputs.values() for source in sources if isinstance(source, From)}


def _digests(source: str | From, done: Mapping[str, Done]) -> list[str]:
    if isinstance(source, str):
        return [source]
    digests = list(done[source.child].outputs.get(source.output, []))
    return digests if source.index is None else digests[source.index : source.index + 1]
