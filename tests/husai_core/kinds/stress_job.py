"""Runs kinds in this process, with artifacts in a directory, and makes what the stress tests start from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from husai_core import identity, kinds
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Artifact, ArtifactType, Inputs


@dataclass
class DirectoryJob:
    """A job whose outputs are directories below `home`; it keeps what was reported."""

    home: Path
    device: str = "cpu"
    resume: Path | None = None
    draining: bool = False
    outputs: list[tuple[str, ArtifactType, Path]] = field(default_factory=list)
    reported: list[tuple[float, float]] = field(default_factory=list)
    curves: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)

    def progress(self, done: float, total: float, unit: str) -> None:
        self.reported.append((done, total))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.curves.append((step, values))

    def log(self, line: str) -> None:
        return None

    def output(self, name: str, type: ArtifactType) -> Path:
        path = self.home / f"{name}{len(self.outputs)}"
        path.mkdir(parents=True)
        self.outputs.append((name, type, path))
        return path

    def checkpoint(self) -> Path:
        path = self.home / "checkpoint"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def commit_checkpoint(self, path: Path) -> None:
        self.resume = path


def artifact(path: Path, type: ArtifactType) -> Artifact:
    """The artifact that a directory holds."""
    data = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    files = {name: {"sha256": identity.sha256(content), "size": len(content)} for name, content in data.items()}
    return Artifact(identity.digest({"type": type, "files": files}), type, path, [0.0])


def run(
    kind: str, home: Path, spec: Mapping[str, Any] | None = None, **inputs: Sequence[Artifact]
) -> tuple[BaseResult, list[Artifact], DirectoryJob]:
    """Run a kind as a worker would; its result, the artifacts it made, and the job."""
    found, job = kinds.get(kind), DirectoryJob(home)
    result = found.execute(found.spec.model_validate(spec or {}), Inputs(inputs), job)
    return result, [artifact(path, type) for _, type, path in job.outputs], job


def stress(kind: str, home: Path, spec: Mapping[str, Any] | None = None, **inputs: Sequence[Artifact]) -> Evidence:
    """Run a stress; its evidence, as read back from JSON."""
    result, made, _ = run(kind, home, spec, **inputs)
    assert made == []
    return kinds.get(kind).result.model_validate_json(result.model_dump_json())  # type: ignore[no-any-return]


RECIPE = {"d_sae": 48, "k": 4, "tokens": 40_000, "batch_size": 256, "lr": 5e-3, "dead_after_tokens": 5_000}


def network(home: Path, seed: int = 0, p: int = 13) -> Artifact:
    """A network for addition modulo `p`, hardly trained."""
    spec = {"p": p, "d_model": 32, "n_heads": 2, "d_mlp": 64, "steps": 60, "batch_size": 128, "seed": seed}
    (made,) = run("train.transformer", home, spec)[1]
    return made


def siblings(home: Path, activations: Artifact, seeds: Sequence[int] = (0, 1, 2), **recipe: object) -> list[Artifact]:
    """Small SAEs on these activations."""
    spec = {"recipe": RECIPE | recipe, "seeds": list(seeds)}
    return run("train.sae", home, spec, activations=[activations])[1]


def forged(sae: Artifact, folder: Path, **provenance: object) -> Artifact:
    """The same weights under another provenance."""
    cfg = json.loads((sae.path / "cfg.json").read_bytes())
    folder.mkdir()
    (folder / "sae_weights.safetensors").write_bytes((sae.path / "sae_weights.safetensors").read_bytes())
    (folder / "cfg.json").write_text(json.dumps({**cfg, "husai": {**cfg["husai"], **provenance}}))
    return artifact(folder, "sae")
