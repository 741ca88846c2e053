from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from husai_core import kinds, panels
from husai_core.activations import store
from husai_core.activations.rows import StoredRows
from husai_core.errors import UserError
from husai_core.estimate import Estimate
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.stress.trained_vs_random import Result
from husai_core.local_job import artifact_in
from husai_core.release.judge import judge_result
from husai_core.release.policy import load as load_policy
from husai_core.saes import checkpoint
from husai_core.stability.overlap import pwmcc
from tests.husai_core.kinds.stress_job import forged, run, siblings, stress

KIND = "stress.trained_vs_random"
WORLD = {"rows": 6000, "n_features": 48, "d_model": 24, "active": 3.0}
Control = tuple[Artifact, list[Artifact]]


def control(home: Path, structureless: bool) -> Control:
    """SAEs on a world; the structureless one is Gaussian noise that shares the world's mean and covariance."""
    spec = {"source": "synthetic", "world": WORLD, "structureless": structureless}
    (activations,) = run("train.activations", home / "activations", spec)[1]
    return activations, siblings(home / "saes", activations, tokens=120_000)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Control:
    """SAEs on a world whose features can be found."""
    return control(tmp_path_factory.mktemp("good"), False)


@pytest.fixture(scope="module")
def evidence(good: Control, tmp_path_factory: pytest.TempPathFactory) -> Result:
    result = stress(KIND, tmp_path_factory.mktemp("stress"), saes=good[1], activations=[good[0]])
    assert isinstance(result, Result)
    return result


def bounds(evidence: Evidence, name: str) -> tuple[float, float, float]:
    estimate: Estimate = evidence.statistics[name]
    assert estimate.value is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.value, estimate.high


def test_true_features_are_found_by_every_seed(evidence: Result) -> None:
    for metric in ("pwmcc", "pw_mcc", "activation_mcc", "pwmcc_alive"):
        assert bounds(evidence, f"{metric}_excess")[0] > 0.1, metric
    assert bounds(evidence, "pwmcc")[1] > 0.7
    assert evidence.subject != []
    assert evidence.seeds == [0, 1, 2]


def test_covariance_alone_gives_no_features(evidence: Result, tmp_path: Path) -> None:
    activations, saes = control(tmp_path, True)
    noise = stress(KIND, tmp_path / "stress", saes=saes, activations=[activations])
    assert bounds(noise, "pwmcc_excess")[1] < 0.03
    beyond_shuffled = bounds(noise, "pwmcc")[1] - bounds(noise, "pwmcc_shuffled_null")[1]
    assert beyond_shuffled > bounds(noise, "pwmcc_excess")[1]
    assert bounds(noise, "pwmcc")[1] < bounds(evidence, "pwmcc")[1] - 0.2


def test_it_says_on_how_many_rows_the_controls_were_trained(good: Control, evidence: Result) -> None:
    assert evidence.control_rows == store.load(good[0].path).part("train").shape[0]


def test_the_excess_is_over_the_largest_null(evidence: Result) -> None:
    for metric in ("pwmcc", "pw_mcc_alive", "mmcs_signed", "activation_pw_mcc"):
        nulls = [bounds(evidence, f"{metric}_{null}_null")[1] for null in ("gaussian", "shuffled", "covariance")]
        expected = bounds(evidence, metric)[1] - max(nulls)
        assert bounds(evidence, f"{metric}_excess")[1] == pytest.approx(expected)


def test_the_rescaled_excess_is_a_share_of_what_the_largest_null_leaves(evidence: Result) -> None:
    for metric in ("pwmcc", "pwmcc_alive", "activation_mcc"):
        null = max(bounds(evidence, f"{metric}_{null}_null")[1] for null in ("gaussian", "shuffled", "covariance"))
        low, value, high = bounds(evidence, f"{metric}_excess_rescaled")
        assert value == pytest.approx((bounds(evidence, metric)[1] - null) / (1 - null))
        assert low < value < high <= 1


def test_changes_are_of_the_same_seeds_and_controls_at_half(good: Control, evidence: Result) -> None:
    wholes, halves = ([load(sae.path) for sae in good[1]] for load in (checkpoint.load, checkpoint.load_half))
    pairs = [(0, 1), (0, 2), (1, 2)]
    gains = [pwmcc(*(wholes[i].W_dec for i in pair)) - pwmcc(*(halves[i].W_dec for i in pair)) for pair in pairs]  # type: ignore[union-attr]
    changes = evidence.changes
    assert changes["pwmcc"].value == pytest.approx(sum(gains) / 3)
    judged = ("explained_variance", "pwmcc_excess", "pwmcc_excess_rescaled", "pwmcc_alive_excess", "pw_mcc_excess")
    assert all(changes[name].low is not None for name in judged)
    assert evidence.statistics.keys() - changes.keys() == {
        "drift_from_init",
        "outlier_fraction",
        *(name for name in evidence.statistics if name.endswith("gaussian_null")),
    }
    at_half = {name: (evidence.statistics[name].value or 0) - (changes[name].value or 0) for name in changes}
    nulls = [at_half[f"pwmcc_{name}_null"] for name in ("shuffled", "covariance")]
    assert at_half["pwmcc_excess"] == pytest.approx(at_half["pwmcc"] - max(nulls))
    assert (evidence.provenance, evidence.retrained) == ("trained here", False)


def test_a_recipe_without_a_half_gives_no_changes(good: Control, tmp_path: Path) -> None:
    saes = siblings(tmp_path / "saes", good[0], tokens=5_000, measure_half=False)
    measured = stress(KIND, tmp_path / "stress", saes=saes, activations=[good[0]])
    assert measured.changes == {}
    assert "it is unknown what more would change" in kinds.get(KIND).panels(measured.model_dump(mode="json"))[0].note


def test_the_headline_and_the_table_show_the_change(evidence: Result) -> None:
    shown = kinds.get(KIND).panels(evidence.model_dump(mode="json"))
    first = shown[0]
    assert isinstance(first, panels.Headline)
    assert [figure.value for figure in first.figures][:2] == [
        evidence.statistics["pwmcc_excess"],
        evidence.changes["pwmcc_excess"],
    ]
    tables = {panel.title: panel for panel in shown if isinstance(panel, panels.Table)}
    column = [row[3] for row in tables["Every statistic"].rows]
    assert [change for change in column if change is not None] == [*evidence.changes.values()]


def test_metrics_are_not_mixed(evidence: Result) -> None:
    low = [bounds(evidence, name)[1] for name in ("pw_mcc", "pwmcc")]
    assert low[0] < low[1]
    assert evidence.pairs == evidence.matrices["pwmcc"]
    pairs = [evidence.pairs[i][j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert bounds(evidence, "pwmcc")[1] == pytest.approx(sum(v for v in pairs if v is not None) / 3)
    for control in evidence.controls.values():
        assert [len(row) for row in control.matrices["pwmcc"]] == [3, 3, 3]


def test_members_are_measured_on_held_out_rows(evidence: Result) -> None:
    assert [member.seed for member in evidence.members] == [0, 1, 2]
    assert all(member.explained_variance > 0.7 for member in evidence.members)
    explained = sum(member.explained_variance for member in evidence.members) / 3
    for name in ("explained_variance", "explained_variance_all_rows", "explained_variance_without_outliers"):
        assert bounds(evidence, name)[1] == pytest.approx(explained)
    assert evidence.statistics["outlier_fraction"].value == 0.0
    drift = sum(member.drift_from_init for member in evidence.members) / 3
    assert bounds(evidence, "drift_from_init")[1] == pytest.approx(drift)
    assert {name: len(control.members) for name, control in evidence.controls.items()} == {
        "shuffled": 3,
        "covariance": 3,
    }


def test_a_few_huge_rows_do_not_carry_the_rule_about_reconstruction(tmp_path: Path) -> None:
    """0.45 % of the rows have 300 times the median norm; one active latent of 16 is enough for them."""
    world = {"rows": 6000, "n_features": 64, "d_model": 16, "active": 12.0}
    stored = store.load(
        run("train.activations", tmp_path / "world", {"source": "synthetic", "world": world})[1][0].path
    )
    rows = stored.rows[:]
    huge = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[: round(0.0045 * len(rows))]
    rows[huge] = 300 * float(rows.norm(dim=1).median()) * torch.eye(16)[0]
    (tmp_path / "planted").mkdir()
    store.save(tmp_path / "planted", replace(stored, rows=StoredRows([rows])))
    activations = artifact_in(tmp_path / "planted", "activations")
    saes = siblings(tmp_path / "saes", activations, d_sae=16, k=1, lr=1e-2)
    measured = stress(KIND, tmp_path / "stress", saes=saes, activations=[activations])
    assert bounds(measured, "explained_variance_all_rows")[0] > 0.9
    assert bounds(measured, "explained_variance")[2] < 0.7
    lower = [member.lower_explained_variance for member in measured.members]  # type: ignore[attr-defined]
    assert bounds(measured, "explained_variance")[1] == pytest.approx(sum(lower) / 3)
    policy = load_policy("strict")
    (rule,) = (rule for rule in policy.rules if rule.name == "reconstruction")
    still = Estimate(value=0.0, low=-0.001, high=0.001, n=3)
    read = measured.model_copy(update={"changes": {"explained_variance": still}})
    assert judge_result(policy, rule, read).verdict == "fail"


def test_repeats_bit_for_bit_and_reports_progress(good: Control, evidence: Result, tmp_path: Path) -> None:
    result, _, job = run(KIND, tmp_path, saes=good[1], activations=[good[0]])
    assert result.model_dump_json() == evidence.model_dump_json()
    assert job.reports[-1][0] == job.reports[-1][1]
    assert {name for _, values in job.curves for name in values} == {
        f"{figure}/{control}"
        for figure in ("normalised_mse", "dead_fraction")
        for control in ("shuffled", "covariance")
    }


def test_two_seeds_leave_the_interval_unknown(good: Control, tmp_path: Path) -> None:
    excess = stress(KIND, tmp_path, saes=good[1][:2], activations=[good[0]]).statistics["pwmcc_excess"]
    assert excess.value is not None
    assert (excess.low, excess.high) == (None, None)


CONVERGED = [
    (3, 12, 1, {"shuffled": True, "covariance": True}),
    (3, 512, 1, {"shuffled": False, "covariance": True}),
    (1, 24, 4, {"shuffled": True, "covariance": False}),
]
"""Features, row width and latents, and which controls come to rest below where they start.

One latent finds next to nothing in 512 dimensions that are shuffled apart; four describe rows of one dimension, or of
their covariance, better to the end.
"""


@pytest.mark.parametrize(("n_features", "d_model", "d_sae", "expected"), CONVERGED)
def test_has_converged_only_if_every_control_has(
    n_features: int, d_model: int, d_sae: int, expected: dict[str, bool], tmp_path: Path
) -> None:
    world = {"rows": 300, "n_features": n_features, "d_model": d_model, "active": 1.0}
    (activations,) = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": world})[1]
    recipe = {"d_sae": d_sae, "k": 1, "tokens": 5_000, "batch_size": 100, "lr": 1e-2, "decay_fraction": 1}
    resting = siblings(tmp_path / "saes", activations, [0, 1], **recipe)
    saes = [forged(sae, tmp_path / f"converged{i}", converged=True) for i, sae in enumerate(resting)]
    measured = stress(KIND, tmp_path / "stress", saes=saes, activations=[activations])
    assert isinstance(measured, Result)
    controls = {name: {member.converged for member in control.members} for name, control in measured.controls.items()}
    assert controls == {name: {converged} for name, converged in expected.items()}
    assert measured.converged == all(expected.values())
    assert measured.unconverged == [f"{name} (seeds 0, 1)" for name, converged in expected.items() if not converged]


def test_the_covariance_control_has_the_covariance_of_the_training_rows_in_every_split(tmp_path: Path) -> None:
    """The test rows of this artifact lie apart: in dimensions in which its training rows do not vary."""
    spec = {"source": "synthetic", "world": {"rows": 600, "n_features": 3, "d_model": 4, "active": 1.0}}
    stored = store.load(run("train.activations", tmp_path / "rows", spec)[1][0].path)
    wide, test = torch.cat([stored.rows[:], torch.zeros(600, 4)], dim=1), stored.mask("test")
    wide[test] = wide[test].roll(4, dims=1)
    (tmp_path / "apart").mkdir()
    store.save(tmp_path / "apart", replace(stored, rows=StoredRows([wide])))
    activations = artifact_in(tmp_path / "apart", "activations")
    saes = siblings(tmp_path / "saes", activations, [0, 1], d_sae=8, tokens=5_000, batch_size=100, lr=1e-2)
    measured = stress(KIND, tmp_path / "stress", saes=saes, activations=[activations])
    assert isinstance(measured, Result)
    assert all(member.explained_variance < 0.3 for member in measured.members)
    assert all(member.explained_variance > 0.7 for member in measured.controls["covariance"].members)


def test_refuses_what_is_no_group_of_siblings(good: Control, tmp_path: Path) -> None:
    activations, saes = good
    with pytest.raises(UserError, match="same seed"):
        stress(KIND, tmp_path, saes=[saes[0], saes[0]], activations=[activations])
    other = siblings(tmp_path / "other", activations, [7], tokens=5_000)
    with pytest.raises(UserError, match="do not have one recipe"):
        stress(KIND, tmp_path, saes=[saes[0], *other], activations=[activations])
    (elsewhere,) = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": WORLD, "seed": 1})[1]
    with pytest.raises(UserError, match="not trained on this activations"):
        stress(KIND, tmp_path, saes=saes, activations=[elsewhere])


def test_refuses_one_training_under_two_seeds(good: Control, tmp_path: Path) -> None:
    activations, saes = good
    copy = forged(saes[0], tmp_path / "copy", seed=9)
    with pytest.raises(UserError, match="same decoder weights"):
        stress(KIND, tmp_path, saes=[saes[0], copy], activations=[activations])


def test_a_checkpoint_without_its_recipe_names_what_is_missing(good: Control, tmp_path: Path) -> None:
    activations, saes = good
    cfg = json.loads((saes[0].path / "cfg.json").read_bytes())
    del cfg["husai"]["recipe"]
    (tmp_path / "sae_weights.safetensors").write_bytes((saes[0].path / "sae_weights.safetensors").read_bytes())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg))
    with pytest.raises(UserError, match=r"its cfg\.json lacks recipe"):
        stress(KIND, tmp_path / "x", saes=[artifact_in(tmp_path, "sae"), saes[1]], activations=[activations])
