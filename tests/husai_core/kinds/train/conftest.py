from collections.abc import Mapping
from pathlib import Path

import pytest

from husai_core.job import ArtifactType


class LocalJob:
    """A job in a folder: keeps what is reported, and reports `draining` while `drain_at` is the last metrics' step."""

    def __init__(self, root: Path, resume: Path | None = None, drain_at: int | None = None) -> None:
        self.device, self.resume, self.root, self.drain_at = "cpu", resume, root, drain_at
        self.steps: list[int] = []
        self.done: list[tuple[float, float]] = []
        self.committed: list[Path] = []

    def progress(self, done: float, total: float, unit: str) -> None:
        self.done.append((done, total))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)

    def log(self, line: str) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "log").open("a").write(line)

    def output(self, name: str, type: ArtifactType) -> Path:
        (self.root / name).mkdir(parents=True)
        return self.root / name

    def checkpoint(self) -> Path:
        path = self.root / f"checkpoint-{len(self.committed)}"
        path.mkdir(parents=True)
        return path

    def commit_checkpoint(self, path: Path) -> None:
        self.committed.append(path)

    @property
    def draining(self) -> bool:
        return self.drain_at is not None and self.drain_at in self.steps


@pytest.fixture
def local_job() -> type[LocalJob]:
    return LocalJob
