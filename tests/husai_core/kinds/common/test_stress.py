"""What every stress does, whatever its question."""

from __future__ import annotations

from pathlib import Path

import pytest

from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs
from husai_core.kinds.common.stress import Stress, StressSpec
from husai_core.local_job import LocalJob
from husai_core.stability.halves import Measured
from tests.husai_core.kinds.stress_job import forged, run, siblings, stress

WORLD = {"rows": 400, "n_features": 24, "d_model": 12, "active": 2}
Trained = tuple[Artifact, list[Artifact]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Rows and five SAEs that one training made of them."""
    home = tmp_path_factory.mktemp("siblings")
    (rows,) = run("train.activations", home / "rows", {"source": "synthetic", "world": WORLD})[1]
    return rows, siblings(home / "saes", rows, (0, 1, 2, 3, 4), tokens=5_000)


def start(rows: Artifact, saes: list[Artifact], home: Path) -> Stress:
    inputs = Inputs({"saes": saes, "activations": [rows]})
    return Stress(StressSpec(), inputs, LocalJob(home), trainings=1, seed=0)


def test_seeds_of_the_training_that_were_left_out_are_counted(trained: Trained, tmp_path: Path) -> None:
    rows, saes = trained
    assert start(rows, saes, tmp_path).evidence(Measured())["siblings_left_out"] == 0
    picked = stress("stress.trained_vs_random", tmp_path / "picked", saes=saes[1:4], activations=[rows])
    assert picked.siblings_left_out == 2


def test_two_trainings_of_one_recipe_count_together(trained: Trained, tmp_path: Path) -> None:
    rows, saes = trained
    later = siblings(tmp_path / "later", rows, (4, 5, 6), tokens=5_000)
    assert start(rows, [saes[0], later[1]], tmp_path).evidence(Measured())["siblings_left_out"] == 5


def test_saes_of_an_earlier_version_do_not_say_what_was_left_out(trained: Trained, tmp_path: Path) -> None:
    rows, saes = trained
    earlier = [forged(sae, tmp_path / str(place), bank_seeds=None) for place, sae in enumerate(saes[:2])]
    assert start(rows, earlier, tmp_path).evidence(Measured())["siblings_left_out"] is None


def test_all_common_fields_are_there_and_nothing_else(trained: Trained, tmp_path: Path) -> None:
    rows, saes = trained
    evidence = start(rows, saes, tmp_path).evidence(Measured())
    assert evidence["subject"] == [sae.digest for sae in saes]
    assert (evidence["imported"], evidence["leaks_label"]) == (False, False)
    assert set(evidence) == {
        "subject", "converged", "imported", "unconverged", "siblings_left_out", "leaks_label",
        "statistics", "changes", "provenance", "retrained", "control_rows", "recipe_check",
    }  # fmt: skip


def test_what_is_bound_must_be_what_they_were_trained_on(trained: Trained, tmp_path: Path) -> None:
    rows, saes = trained
    other = Artifact("0" * 64, "activations", rows.path, [0.0])
    with pytest.raises(UserError, match="not trained on this activations"):
        start(other, saes, tmp_path)
