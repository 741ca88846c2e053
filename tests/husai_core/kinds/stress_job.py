"""Runs kinds in this process, with artifacts in a directory, and makes what the stress tests start from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from husai_core import kinds
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Artifact, Inputs
from husai_core.local_job import LocalJob, artifact_in


def run(
    kind: str, home: Path, spec: Mapping[str, Any] | None = None, **inputs: Sequence[Artifact]
) -> tuple[BaseResult, list[Artifact], LocalJob]:
    """Run a kind as a worker would; its result, the artifacts it made, and the job."""
    declared, job = kinds.get(kind), LocalJob(home)
    result = declared.execute(declared.spec.model_validate(spec or {}), Inputs(inputs), job)
    return result, [artifact_in(path, type) for _, type, path in job.outputs], job


def stress(kind: str, home: Path, spec: Mapping[str, Any] | None = None, **inputs: Sequence[Artifact]) -> Evidence:
    """Run a stress; its evidence, as read back from JSON."""
    result, artifacts, _ = run(kind, home, spec, **inputs)
    assert artifacts == []
    return kinds.get(kind).result.model_validate_json(result.model_dump_json())  # type: ignore[no-any-return]


RECIPE = {"d_sae": 48, "k": 4, "tokens": 40_000, "batch_size": 256, "lr": 5e-3, "dead_after_tokens": 5_000}


def network(home: Path, seed: int = 0, p: int = 13) -> Artifact:
    """A network for addition modulo `p`, hardly trained."""
    spec = {"p": p, "d_model": 32, "n_heads": 2, "d_mlp": 64, "steps": 60, "batch_size": 128, "seed": seed}
    (transformer,) = run("train.transformer", home, spec)[1]
    return transformer


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
    return artifact_in(folder, "sae")
