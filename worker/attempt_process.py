"""One attempt's own process. It runs a kind's code and talks to its supervisor over a pipe, in JSON; it never sees the
database. It leads a process group and kills it when the supervisor is gone.
"""

import io
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from husai_core import kinds
from husai_core.artifact_index import index_tree
from husai_core.errors import MissingAssets, UserError
from husai_core.identity import canonical
from husai_core.job import Artifact, ArtifactType, Inputs
from husai_core.kinds.kind import Done, Kind
from services.failpoints import failpoint
from services.storage import disk_fault
from worker import panel_files

OUT_OF_MEMORY = ("can't allocate memory", "CUDA out of memory")
"""What torch says in a RuntimeError when an allocation fails."""


@dataclass(frozen=True)
class Task:
    """What a child must know to run one attempt; plain data."""

    job_id: str
    attempt: int
    kind: str
    spec: dict[str, Any]
    device: str
    threads: int
    cpu_capability: str | None
    directory: str
    inputs: dict[str, list[dict[str, Any]]]
    resume: str | None
    done: dict[str, dict[str, Any]] = field(default_factory=dict)


class Drained(BaseException):
    """Raised out of the kind's code once its checkpoint is published and the worker wants to stop."""


class SupervisorPipe(threading.Thread):
    """The child's end of the pipe: sends from any thread, listens in its own."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(daemon=True, name="supervisor")
        self.pipe, self.lock, self.draining = pipe, threading.Lock(), threading.Event()
        self.acknowledged = threading.Semaphore(0)

    def send(self, type: str, **data: Any) -> None:
        """Send one message; a closed pipe ends the process from the listening thread."""
        with self.lock:
            self.pipe.send_bytes(json.dumps({"type": type, **data}, allow_nan=False).encode())

    def run(self) -> None:
        """Listen; when the supervisor is gone, end the whole process group."""
        try:
            while True:
                message = self.pipe.recv_bytes()
                if message == b"drain":
                    self.draining.set()
                elif message == b"kept":
                    self.acknowledged.release()
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)


class ChildJob:
    """The `Job` that a kind's code sees."""

    def __init__(self, task: Task, supervisor: SupervisorPipe) -> None:
        self._task, self._supervisor = task, supervisor
        self.device = task.device
        self.resume = Path(task.resume) if task.resume else None
        self.outputs: list[tuple[str, ArtifactType, Path]] = []
        self._said = {"progress": 0.0, "metrics": 0.0}

    def progress(self, done: float, total: float, unit: str) -> None:
        """Report work done, at most five times a second."""
        if self._due("progress") or done >= total:
            self._supervisor.send("progress", done=done, total=total, unit=unit)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Report one point of the live curves, at most five times a second; a figure that is not finite is null."""
        if self._due("metrics"):
            finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self._supervisor.send("metrics", step=step, values=finite)

    def log(self, line: str) -> None:
        """Write one line to the job's log."""
        self._supervisor.send("log", text=line)

    def output(self, name: str, type: ArtifactType) -> Path:
        """A fresh directory that becomes the next artifact of output `name`."""
        path = Path(self._task.directory, "outputs", f"{len(self.outputs):03d}")
        path.mkdir(parents=True)
        self.outputs.append((name, type, path))
        return path

    def checkpoint(self) -> Path:
        """A fresh directory for a resumable checkpoint."""
        path = Path(self._task.directory, "checkpoints", str(time.monotonic_ns()))
        path.mkdir(parents=True)
        return path

    def commit_checkpoint(self, path: Path) -> None:
        """Publish a checkpoint and wait until it is kept; end the attempt here if the worker is stopping."""
        self._supervisor.send("checkpoint", path=str(path), index=index_tree("state", path))
        self._supervisor.acknowledged.acquire()
        shutil.rmtree(path)
        if self.draining:
            raise Drained

    @property
    def draining(self) -> bool:
        """True when the worker is shutting down."""
        return self._supervisor.draining.is_set()

    def _due(self, channel: str) -> bool:
        now = time.monotonic()
        due = now - self._said[channel] >= 0.2
        if due:
            self._said[channel] = now
        return due


class LogStream(io.TextIOBase):
    """`print` and warnings of the kind's code become log lines."""

    def __init__(self, supervisor: SupervisorPipe) -> None:
        self._supervisor, self._begun = supervisor, ""

    def write(self, text: str) -> int:
        """Send the lines that are complete; blank ones are dropped."""
        *lines, self._begun = (self._begun + text.replace("\r", "\n")).split("\n")
        for line in filter(str.strip, lines):
            self._supervisor.send("log", text=line)
        return len(text)


def main(pipe: Connection, task: Task) -> None:
    """Run one attempt; the exit status says only whether the process ended by itself."""
    os.setsid()
    os.environ["TMPDIR"] = task.directory
    tempfile.tempdir = None
    for number in (signal.SIGTERM, signal.SIGINT):  # what is sent to all processes is the supervisor's to answer
        signal.signal(number, signal.SIG_IGN)
    supervisor = SupervisorPipe(pipe)
    supervisor.start()
    sys.stdout = sys.stderr = LogStream(supervisor)
    try:
        result, outputs = _execute(task, supervisor)
        failpoint("child.before_result")
        supervisor.send("succeeded", result=result, outputs=outputs)
    except Drained:
        supervisor.send("drained")
    except MissingAssets as error:
        supervisor.send("blocked", detail=str(error), assets=[asdict(asset) for asset in error.assets])
    except UserError as error:
        supervisor.send("failed", reason="error.input", detail=str(error))
    except Exception as error:
        _report(supervisor, error)
    supervisor.acknowledged.acquire()
    os._exit(0)


def _report(supervisor: SupervisorPipe, error: Exception) -> None:
    """Tell of an error that no user has made: the host's, a lack of memory, or one in the code."""
    supervisor.send("log", text="".join(traceback.format_exception(error)))
    if (number := disk_fault(error)) is not None:
        supervisor.send("host", number=number)
    elif isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        supervisor.send("failed", reason="infra.oom", detail="The job needs more memory than there is.")
    else:
        supervisor.send("failed", reason="error.code", detail=f"{type(error).__name__}: {error}".splitlines()[0])


def _execute(task: Task, supervisor: SupervisorPipe) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from husai_core import manifest

    started_at, start = time.time(), time.monotonic()
    _prepare(task.threads, task.cpu_capability)
    kind = kinds.get(task.kind)
    spec = kind.spec.model_validate(task.spec)
    inputs = Inputs(
        {
            port: [Artifact(row["digest"], row["type"], Path(row["path"]), row["produced_at"]) for row in rows]
            for port, rows in task.inputs.items()
        }
    )
    job = ChildJob(task, supervisor)
    if kind.is_study:
        done = {name: Done(**child) for name, child in task.done.items()}
        outcome = kind.sum_up(spec, inputs, done, job)
    else:
        outcome = kind.execute(spec, inputs, job)
    result = outcome.model_dump(mode="json")
    digests = {port: [row["digest"] for row in rows] for port, rows in task.inputs.items()}
    document = {
        "kind": task.kind, "spec": task.spec, "inputs": digests, "code": kinds.code_digest(task.kind),
        "device": task.device, "result": result,
    }  # fmt: skip
    (job.output("result", "result") / "result.json").write_bytes(canonical(document))
    _write_panels(kind, result, job)
    outputs = [_describe(*output) for output in job.outputs]
    described = manifest.collect(
        kind=task.kind, spec=task.spec, inputs=digests, outputs=_by_name(outputs), device=task.device,
        digest=kinds.job_digest(task.kind, task.spec, digests, task.device), code=kinds.code_digest(task.kind),
        threads=task.threads, started_at=started_at, wall_seconds=time.monotonic() - start,
        job_id=task.job_id, attempt=task.attempt,
    )  # fmt: skip
    (job.output("manifest", "manifest") / "manifest.json").write_bytes(canonical(described))
    return result, [*outputs, _describe(*job.outputs[-1])]


def _write_panels(kind: Kind, result: dict[str, Any], job: ChildJob) -> None:
    """Write the tables and figures of a result. What can be drawn again at any time is no reason to fail a job."""
    try:
        panel_files.write(kind.panels(result), job)
    except Exception as error:
        if disk_fault(error) is not None:
            raise
        job.log(f"the tables and figures could not be written: {type(error).__name__}: {error}")


def _prepare(threads: int, cpu_capability: str | None) -> None:
    """Give the process its threads, and the instruction set that a repetition asks for, before any tensor operation."""
    if cpu_capability:
        os.environ["ATEN_CPU_CAPABILITY"] = cpu_capability.lower()
    import torch

    torch.set_num_threads(threads)


def _describe(name: str, type: ArtifactType, path: Path) -> dict[str, Any]:
    return {"name": name, "path": str(path), "index": index_tree(type, path)}


def _by_name(outputs: list[dict[str, Any]]) -> dict[str, list[str]]:
    from husai_core.identity import digest

    digests: dict[str, list[str]] = {}
    for output in outputs:
        digests.setdefault(output["name"], []).append(digest(output["index"]))
    return digests


def task_done(done: Mapping[str, Done]) -> dict[str, dict[str, Any]]:
    """Children's outcomes as plain data."""
    return {name: asdict(child) for name, child in done.items()}
