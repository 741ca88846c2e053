"""Estimates of work against what small real runs took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from husai_core import kinds
from husai_core.job import Artifact
from husai_core.kinds import plan_estimate
from husai_core.kinds.kind import Child, Done, From, Work
from tests.husai_core.kinds.stress_job import run

NETWORK = {"p": 23, "d_model": 64, "n_heads": 2, "d_mlp": 128, "n_layers": 2, "steps": 20, "batch_size": 256}
BANK_FACT = {"d_in": 64, "husai": {"recipe": {"d_sae": 512, "k": 8, "tokens": 20_000, "batch_size": 500}}}
BANK = {"recipe": {"d_sae": 512, "k": 8, "tokens": 20_000, "batch_size": 500}, "seeds": [0, 1, 2]}


def estimated(kind: str, spec: Mapping[str, Any], **inputs: list[Artifact]) -> Work:
    """The estimate of a job, from what its inputs' `cfg.json` say."""
    declared = kinds.get(kind)
    assert declared.estimate
    facts = {port: [json.loads((a.path / "cfg.json").read_bytes()) for a in bound] for port, bound in inputs.items()}
    return declared.estimate(declared.spec.model_validate(spec), facts)


def size(artifacts: list[Artifact]) -> int:
    """Bytes of all files."""
    files = [path for artifact in artifacts for path in artifact.path.rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in files)


def counted(mode: FlopCounterMode) -> float:
    """Multiply-adds of the matrix products that were counted."""
    return mode.get_total_flops() / 2


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    return run("train.transformer", tmp_path_factory.mktemp("network"), NETWORK)[1]


def test_a_networks_bytes_and_multiply_adds_are_of_the_right_size(tmp_path: Path) -> None:
    with FlopCounterMode(display=False) as mode:
        _, artifacts, _ = run("train.transformer", tmp_path, NETWORK)
    work = estimated("train.transformer", NETWORK)
    assert size(artifacts) == pytest.approx(work.written_bytes, rel=0.3)
    assert 0.5 < work.units / counted(mode) < 2


def test_rows_are_foretold_as_they_will_be(network: list[Artifact], tmp_path: Path) -> None:
    spec = {"hook_names": ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]}
    work = estimated("train.activations", spec, transformer=network)
    _, artifacts, _ = run("train.activations", tmp_path, spec, transformer=network)
    cfg = json.loads((artifacts[0].path / "cfg.json").read_bytes())
    foretold = work.outputs["activations"]
    assert foretold["count"] == len(artifacts) == 2
    assert {name: foretold[name] for name in ("d_model", "n_rows", "p")} == {
        name: cfg[name] for name in ("d_model", "n_rows", "p")
    }
    assert foretold["rows_by_split"] == {
        name: pytest.approx(rows, abs=1) for name, rows in cfg["rows_by_split"].items()
    }
    assert size(artifacts) == pytest.approx(work.written_bytes, rel=0.05)


@pytest.mark.parametrize(
    "spec", [{"source": "synthetic"}, {"source": "language", "model": "classics-2m", "max_rows": 3000}]
)
def test_rows_of_worlds_and_texts_take_the_bytes_that_were_foretold(spec: dict[str, Any], tmp_path: Path) -> None:
    work = estimated("train.activations", spec)
    _, artifacts, _ = run("train.activations", tmp_path, spec)
    assert size(artifacts) == pytest.approx(work.written_bytes, rel=0.05)
    assert (
        work.outputs["activations"]["d_model"] == json.loads((artifacts[0].path / "cfg.json").read_bytes())["d_model"]
    )


MEASURED = """
import json, sys
from pathlib import Path
from tests.husai_core.kinds.stress_job import run
home, spec = Path(sys.argv[1]), json.loads(sys.argv[2])
world = {"rows": 30_000, "n_features": 64, "d_model": 256}
_, rows, _ = run("train.activations", home / "rows", {"source": "synthetic", "world": world})
_, saes, _ = run("train.sae", home / "saes", spec, activations=rows)
status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
memory = int(status['VmHWM'].split()[0]) * 1024  # ru_maxrss would be that of the process that started this one
print(json.dumps({"memory": memory, "rows": str(rows[0].path), "saes": [str(sae.path) for sae in saes]}))
"""


def test_a_banks_memory_and_bytes_are_of_the_right_size(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURED, str(tmp_path), json.dumps(BANK)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows = Artifact("0" * 64, "activations", Path(measured["rows"]), [])
    work = estimated("train.sae", BANK, activations=[rows])
    assert measured["memory"] == pytest.approx(work.memory_bytes, rel=0.4)
    saes = [Artifact("0" * 64, "sae", Path(path), []) for path in measured["saes"]]
    assert size(saes) == pytest.approx(work.written_bytes, rel=0.1)
    foretold, cfg = work.outputs["saes"], json.loads((saes[0].path / "cfg.json").read_bytes())
    assert (foretold["count"], foretold["d_in"], foretold["d_sae"]) == (3, cfg["d_in"], cfg["d_sae"])
    assert foretold["husai"]["recipe"]["tokens"] == cfg["husai"]["recipe"]["tokens"]


@pytest.mark.parametrize(("change", "ratio"), [({"tokens": 40_000}, 2.0), ({"d_sae": 1024}, 2.0)])
def test_more_tokens_and_latents_are_more_work(change: dict[str, int], ratio: float) -> None:
    declared, recipe = kinds.get("train.sae"), BANK["recipe"]
    assert declared.estimate
    facts = {"activations": [{"d_model": 64, "n_rows": 100}]}
    specs = [declared.spec.model_validate({"recipe": {**recipe, **more}}) for more in ({}, change)]  # type: ignore[dict-item]
    first, second = (declared.estimate(spec, facts).units for spec in specs)
    assert second / first == pytest.approx(ratio, rel=0.15)


def test_a_pipeline_is_the_sum_of_all_the_jobs_that_it_plans() -> None:
    whole = plan_estimate.jobs("study.pipeline", {"preset": "smoke", "as_of": "2026-01-31T12:00:00Z"}, {})
    assert not whole.more
    planned = whole.jobs
    paths = [job.path for job in planned]
    assert paths[:3] == ["transformer", "activations", "sae"]
    assert "gate/good-saes" in paths
    assert {job.child for job in planned if job.path.startswith("gate/")} == {"gate"}
    assert all(job.work.units > 0 and job.work.memory_bytes > 2**28 for job in planned)
    pipeline = kinds.get("study.pipeline")
    assert pipeline.estimate
    total = pipeline.estimate(pipeline.spec.model_validate({"preset": "smoke"}), {})
    assert total.units == pytest.approx(sum(job.work.units for job in planned))
    assert total.memory_bytes == max(job.work.memory_bytes for job in planned)


def test_siblings_are_estimated_from_what_a_child_will_make() -> None:
    def plan(spec: Any, inputs: Mapping[str, list[str]], done: Mapping[str, Any]) -> list[Child]:
        saes = {"saes": [From("saes", "saes")], "activations": [From("rows", "activations", 0)]}
        return [
            Child("overlap", "stress.trained_vs_random", {}, saes),
            Child("saes", "train.sae", BANK, {"activations": inputs["activations"]}),
            Child("rows", "train.activations", {"source": "synthetic"}),
        ]

    def units(width: int) -> dict[str, float]:
        facts = {"activations": [{"d_model": width, "n_rows": 10_000}]}
        return {job.path: job.work.units for job in plan_estimate._planned(plan, None, facts).jobs}

    narrow, wide = units(64), units(128)
    assert set(narrow) == {"overlap", "saes", "rows"}
    assert wide["saes"] > 1.5 * narrow["saes"]
    assert wide["overlap"] > 1.2 * narrow["overlap"]


def rounds(result_is_read: bool) -> Any:
    """A study that trains, and in a second round measures each SAE; a third one may depend on a figure."""

    def plan(spec: Any, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
        if not done:
            return [Child("k/d = 8", "train.sae", BANK, {"activations": inputs["activations"]})]
        if "overlap" not in done:
            saes = {"saes": list(done["k/d = 8"].outputs["saes"]), "activations": inputs["activations"]}
            return [Child("overlap", "stress.trained_vs_random", {}, saes)]
        assert done["overlap"].result is not None
        return [Child(f"{done['overlap'].result['pwmcc']}", "train.sae", BANK)] if result_is_read else []

    return plan


@pytest.mark.parametrize("result_is_read", [False, True])
def test_later_rounds_are_counted_as_far_as_they_do_not_depend_on_results(result_is_read: bool) -> None:
    facts = {"activations": [{"d_model": 64, "n_rows": 10_000}]}
    planned = plan_estimate._planned(rounds(result_is_read), None, facts)
    assert [job.path for job in planned.jobs] == [job.child for job in planned.jobs] == ["k/d = 8", "overlap"]
    assert planned.more == result_is_read
    three = plan_estimate.jobs("stress.trained_vs_random", {}, facts | {"saes": [BANK_FACT] * 3}).jobs[0].work
    assert planned.jobs[1].work.units == pytest.approx(three.units)


def test_every_kind_estimates_its_defaults_without_numerical_libraries() -> None:
    program = """
import sys
from husai_core import kinds
for name in kinds.names():
    declared = kinds.get(name)
    work = declared.estimate(declared.spec(), {})
    assert work.memory_bytes > 0, name
print(sorted({"torch", "scipy", "transformer_lens"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
