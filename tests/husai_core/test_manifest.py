from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from husai_core import identity, kinds, manifest

SPEC = {"seed": 3, "recipe": {"k": 4, "init_seeds": [1, 2]}, "untrained_seed": 7}


def collected(**changed: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "kind": "release.gate",
        "spec": SPEC,
        "inputs": {"saes": ["a" * 64]},
        "outputs": {"result": ["b" * 64]},
        "code": kinds.code_digest("release.gate"),
        "device": "cpu",
        "threads": 1,
        "started_at": 1769860800.0,
        "wall_seconds": 1.23456,
        "job_id": "job-1",
        "attempt": 1,
    }
    merged = {**usual, **changed}
    digest = kinds.job_digest(merged["kind"], merged["spec"], merged["inputs"], merged["device"])
    return manifest.collect(digest=digest, **merged)


def test_a_manifest_holds_what_repetition_needs() -> None:
    document = collected()
    assert document["spec"] == SPEC
    assert document["seeds"] == {"seed": 3, "recipe.init_seeds": [1, 2], "untrained_seed": 7}
    assert document["code"] == kinds.code_digest("release.gate")
    assert document["command"] == "husai rerun job-1 --check"
    assert document["started_at"] == "2026-01-31T12:00:00.000+00:00"
    assert document["wall_seconds"] == 1.235
    assert document["peak_memory_bytes"]["resident"] > 10_000_000


def test_capability_names_libraries_blas_and_processor() -> None:
    document = collected()["capability"]
    assert set(document["libraries"]) >= {"torch", "numpy", "safetensors"}
    assert document["blas"]["numpy"]
    assert document["blas"]["torch"]
    assert document["cpu"]["capability"]
    assert (document["device"], document["threads"], document["cuda"]) == ("cpu", 1, None)


def test_a_manifest_is_canonical_json() -> None:
    document = collected()
    assert json.loads(identity.canonical(document)) == document


def test_two_runs_of_one_computation_compare_equal() -> None:
    first = collected()
    second = collected(started_at=1.0, wall_seconds=99.0, job_id="job-2", attempt=4)
    second["peak_memory_bytes"] = {"resident": 1}
    assert first != second
    assert manifest.comparable(first) == manifest.comparable(second)
    assert manifest.differences(first, second) == []


def test_every_run_dependent_field_exists() -> None:
    assert set(manifest.RUN_DEPENDENT) < set(collected())


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"outputs": {"result": ["c" * 64]}}, ["outputs.result"]),
        ({"threads": 2}, ["capability.threads"]),
        ({"spec": {**SPEC, "seed": 4}}, ["digest", "seeds.seed", "spec.seed"]),
    ],
)
def test_a_difference_is_named(changed: dict[str, Any], named: list[str]) -> None:
    assert manifest.differences(collected(), collected(**changed)) == named


def test_lock_and_revision_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "ROOT", tmp_path)
    for cached in (manifest.git, manifest.lock_digest):
        monkeypatch.setattr(manifest, cached.__name__, cached.__wrapped__)
    assert (manifest.git(), manifest.lock_digest()) == (None, None)
    (tmp_path / "requirements.lock").write_text("torch==1\n")
    assert manifest.lock_digest() == hashlib.sha256(b"torch==1\n").hexdigest()
    identify = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identify, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = manifest.git()
    assert clean
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "requirements.lock").write_text("torch==2\n")
    assert manifest.git() == {"commit": clean["commit"], "dirty": True}


def test_importing_it_loads_no_numerical_library() -> None:
    code = "import sys, husai_core.manifest; sys.exit(bool({'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
