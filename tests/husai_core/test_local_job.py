from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from husai_core.errors import UserError
from husai_core.identity import digest
from husai_core.local_job import LocalJob, LocalRunner, artifact_in, run

WORLD = {"source": "synthetic", "world": {"rows": 400, "n_features": 24, "d_model": 12, "active": 2}}
RECIPE = {"d_sae": 32, "k": 4, "tokens": 4_000, "batch_size": 100}


def test_kinds_run_one_after_another_and_leave_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run("train.activations", WORLD, folder=tmp_path)
    saes = run(
        "train.sae", {"recipe": RECIPE, "seeds": [0, 1, 2]}, folder=tmp_path, activations=rows.paths["activations"]
    )
    stability = run(
        "stress.trained_vs_random", folder=tmp_path, saes=saes.outputs["saes"], activations=rows.outputs["activations"]
    )
    assert len(saes.paths["saes"]) == 3
    assert all((path / "sae_weights.safetensors").is_file() for path in saes.paths["saes"])
    assert stability.result.model_dump()["subject"] == [artifact.digest for artifact in saes.outputs["saes"]]
    assert "4,000 of 4,000 rows" in capsys.readouterr().err
    assert stability.panels
    assert "<style" in stability._repr_html_()


def test_what_was_computed_is_not_computed_again(tmp_path: Path) -> None:
    first = LocalRunner(tmp_path).run("train.activations", WORLD)
    written = first.job.folder.stat().st_mtime_ns
    second = LocalRunner(tmp_path).run("train.activations", WORLD)
    assert second.result == first.result
    assert second.paths == first.paths
    assert first.job.folder.stat().st_mtime_ns == written


class Interrupted(Exception):
    pass


class Stopping(LocalJob):
    """Is killed when its first checkpoint is kept."""

    def metrics(self, step: int, values: Any) -> None:
        super().metrics(step, values)
        self.draining = True

    def commit_checkpoint(self, path: Path) -> None:
        super().commit_checkpoint(path)
        raise Interrupted


def test_an_interrupted_job_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rows,) = LocalRunner(tmp_path).run("train.activations", WORLD).outputs["activations"]
    spec = {"recipe": RECIPE, "seeds": [0]}
    whole = LocalRunner(tmp_path / "whole").run("train.sae", spec, activations=rows)
    runner = LocalRunner(tmp_path / "again")
    with monkeypatch.context() as stopped:
        stopped.setattr("husai_core.local_job.LocalJob", Stopping)
        with pytest.raises(Interrupted):
            runner.run("train.sae", spec, activations=rows)
    again = LocalRunner(tmp_path / "again").run("train.sae", spec, activations=rows)
    assert len(again.job.curves) < len(whole.job.curves)
    assert [a.digest for a in again.outputs["saes"]] == [a.digest for a in whole.outputs["saes"]]
    assert not (again.job.folder / "checkpoint").exists()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"rows": "nowhere"}, "has no input rows; it has activations"),
        ({}, "input 'activations' of train.sae takes at least 1, not 0"),
        ({"activations": "nowhere"}, "nowhere is not a folder that holds an artifact"),
    ],
)
def test_wrong_inputs_are_named(tmp_path: Path, inputs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LocalRunner(tmp_path).run("train.sae", {}, **inputs)


def test_a_wrong_spec_is_refused(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path)
    with pytest.raises(UserError, match=r"^colour: unknown field$"):
        runner.run("train.activations", {"colour": 1})
    with pytest.raises(UserError, match=r"^recipe\.kk: unknown field; did you mean k"):
        runner.run("train.sae", {"recipe": {"kk": 3}})
    with pytest.raises(UserError, match=r"there is no kind .train\.saee.; did you mean train\.sae"):
        runner.run("train.saee")


def test_progress_in_a_file_is_few_lines_that_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = LocalJob(tmp_path, quiet=False)
    job._printed -= 10
    for done in range(0, 1001, 10):
        job.progress(done, 1000, "rows")
    assert capsys.readouterr().err == "1,000 of 1,000 rows\n"


def test_two_artifacts_for_one_are_refused(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path)
    worlds = [runner.run("train.activations", WORLD | {"seed": seed}).paths["activations"][0] for seed in (0, 1)]
    with pytest.raises(UserError, match="takes one artifact, not 2"):
        runner.run("train.sae", {"recipe": RECIPE}, activations=worlds)


def test_an_artifact_has_the_digest_that_the_service_gives_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("a")
    index = {"type": "upload", "files": {"in/a.txt": {"sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "size": 1}}}  # fmt: skip  # noqa: E501
    assert artifact_in(tmp_path, "upload").digest == digest(index)
