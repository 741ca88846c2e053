"""What a job kind is: a typed spec, a typed result, named inputs and outputs, and the code between them.

A kind is one module below `husai_core.kinds`. The module's docstring is its help, and it defines

- `Spec(kinds.Spec)` and `Result(kinds.Result)`,
- `INPUTS` and `OUTPUTS`, mappings of name to `Port`,
- either `run(spec, inputs, job) -> Result`, or, for a study,
  `plan(spec, inputs, done) -> list[Child]` and `summarise(spec, inputs, done, job) -> Result`.

Heavy libraries are imported inside those functions, so that a spec can be validated without them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from husai_core.estimate import Estimate

ArtifactType = Literal[
    "sae",
    "transformer",
    "activations",
    "table",
    "figure",
    "report",
    "result",
    "manifest",
    "decision",
    "state",
    "upload",
]


class Spec(BaseModel):
    """Base of every job specification: immutable, unknown fields refused, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse a choice of input ports that does not suit this spec; `bound` names those that are given something.

        Raises:
            KindError: it does not.
        """


class Result(BaseModel):
    """Base of every job result: deterministic figures only; times and hosts belong in the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Evidence(Result):
    """A result that a release policy can read: figures about named SAE checkpoints."""

    subject: list[str] = Field(description="digests of the SAE checkpoints that the figures are about")
    converged: bool = Field(description="every training run behind the figures had converged")
    imported: bool = Field(default=False, description="how the SAEs were trained is known from their user only")
    unconverged: list[str] = Field(default=[], description="the training runs that had not, by group and seed")
    leaks_label: bool = Field(description="the input of the model, where it was read or trained, shows the answer")
    statistics: dict[str, Estimate] = Field(description="the figures that rules may name")


class KindError(Exception):
    """A user's mistake or an unmeetable request, found while a job runs; its message is one line for the user."""


@dataclass(frozen=True)
class Port:
    """One named input or output of a kind."""

    type: ArtifactType
    help: str
    many: bool = False
    required: bool = True
    at_least: int = 1


EVERY_JOB = {"result": Port("result", "its figures"), "manifest": Port("manifest", "what it was made from")}


@dataclass(frozen=True)
class Artifact:
    """Immutable files under one digest, as a running job sees them.

    `path` is a read-only directory that holds the files; `produced_at` are the instants at which jobs made it, or its
    upload's, in Unix time and ascending.
    """

    digest: str
    type: ArtifactType
    path: Path
    produced_at: Sequence[float]


@dataclass(frozen=True)
class Inputs:
    """The artifacts bound to a job's input ports."""

    ports: Mapping[str, Sequence[Artifact]]

    @property
    def bound(self) -> list[str]:
        """The ports that something is bound to."""
        return [name for name, found in self.ports.items() if found]

    def one(self, name: str) -> Artifact:
        """The single artifact of a required port."""
        (artifact,) = self.ports[name]
        return artifact

    def maybe(self, name: str) -> Artifact | None:
        """The artifact of an optional port, or None."""
        found = self.ports.get(name, ())
        return found[0] if found else None

    def many(self, name: str) -> list[Artifact]:
        """All artifacts of a port, in the order given; empty when nothing was bound."""
        return list(self.ports.get(name, ()))


class Job(Protocol):
    """What running code may ask of its surroundings. It never sees the database."""

    device: str
    """`cpu` or `cuda`."""
    resume: Path | None
    """Directory of the last resumable checkpoint of this job, if an earlier attempt left one."""

    def progress(self, done: float, total: float, unit: str) -> None:
        """Report work done; only this keeps a job from its progress timeout."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Report one point of the live curves."""

    def log(self, line: str) -> None:
        """Write one line to the job's log."""

    def output(self, name: str, type: ArtifactType) -> Path:
        """A fresh empty directory; the files written there become the next artifact of output `name`."""

    def checkpoint(self) -> Path:
        """A fresh empty directory for a resumable checkpoint; `commit_checkpoint` publishes it."""

    def commit_checkpoint(self, path: Path) -> None:
        """Publish the checkpoint written in `path`; a later attempt finds it in `resume`."""

    @property
    def draining(self) -> bool:
        """True when the worker is shutting down: checkpoint soon."""


@dataclass(frozen=True)
class From:
    """A child's input that names a sibling's output (all of its artifacts, or the one at `index`)."""

    child: str
    output: str
    index: int | None = None


@dataclass(frozen=True)
class Child:
    """One job that a study asks for. `name` is unique inside the study.

    `inputs` maps a port to artifact digests, sibling outputs, or a list that mixes both.
    """

    name: str
    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str | From]] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """How a study's child ended. `result` and `outputs` (output name to digests) are empty unless it succeeded."""

    state: str
    reason: str | None = None
    result: Mapping[str, Any] | None = None
    outputs: Mapping[str, Sequence[str]] = field(default_factory=dict)


QUEUES = {"train": "train", "benchmark": "benchmark", "stress": "stress", "study": "control", "release": "control"}


@dataclass(frozen=True)
class Kind:
    """A registered job kind, read from its module."""

    name: str
    module: ModuleType

    @property
    def help(self) -> str:
        """The module's docstring."""
        return (self.module.__doc__ or "").strip()

    @property
    def queue(self) -> str:
        """The queue that carries this kind's jobs."""
        return QUEUES[self.name.split(".")[0]]

    @property
    def spec(self) -> type[Spec]:
        """The spec model."""
        return self.module.Spec  # type: ignore[no-any-return]

    @property
    def inputs(self) -> Mapping[str, Port]:
        """Input ports."""
        return self.module.INPUTS  # type: ignore[no-any-return]

    @property
    def outputs(self) -> Mapping[str, Port]:
        """The output ports of the kind's own."""
        return self.module.OUTPUTS  # type: ignore[no-any-return]

    @property
    def produced(self) -> Mapping[str, Port]:
        """What a job of this kind can be asked for: its output ports, and what every job writes."""
        return {**self.outputs, **EVERY_JOB}

    @property
    def is_study(self) -> bool:
        """True when the kind plans child jobs."""
        return hasattr(self.module, "plan")

    @property
    def time_limit(self) -> float:
        """Seconds one attempt may run (module constant `TIME_LIMIT`, default 24 h)."""
        return float(getattr(self.module, "TIME_LIMIT", 86_400))

    @property
    def progress_timeout(self) -> float:
        """Seconds without progress after which an attempt is killed (`PROGRESS_TIMEOUT`, default 15 min)."""
        return float(getattr(self.module, "PROGRESS_TIMEOUT", 900))
