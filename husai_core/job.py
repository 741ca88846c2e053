"""What running code may ask of its surroundings: the artifacts bound to it, and a `Job` to report to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

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
        return [name for name, artifacts in self.ports.items() if artifacts]

    def one(self, name: str) -> Artifact:
        """The single artifact of a required port."""
        (artifact,) = self.ports[name]
        return artifact

    def maybe(self, name: str) -> Artifact | None:
        """The artifact of an optional port, or None."""
        artifacts = self.ports.get(name, ())
        return artifacts[0] if artifacts else None

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
