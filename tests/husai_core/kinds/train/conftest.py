from collections.abc import Mapping
from pathlib import Path

import pytest

from husai_core.job import ArtifactType
from husai_core.local_job import LocalJob


class PlainJob(LocalJob):
    """A job with one artifact per output, in a folder of its name. It is `draining` from step `drain_at` on."""

    def __init__(self, root: Path, resume: Path | None = None, drain_at: int | None = None) -> None:
        super().__init__(root, resume=resume)
        self.drain_at, self.committed = drain_at, list[Path]()

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.curves]

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        super().metrics(step, values)
        self.draining = self.draining or step == self.drain_at

    def output(self, name: str, type: ArtifactType) -> Path:
        (self.folder / name).mkdir(parents=True)
        return self.folder / name

    def commit_checkpoint(self, path: Path) -> None:
        self.committed.append(path)


@pytest.fixture
def local_job() -> type[PlainJob]:
    return PlainJob
