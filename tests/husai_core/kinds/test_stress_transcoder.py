from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from husai_core import kinds
from husai_core.errors import UserError
from husai_core.job import Artifact
from husai_core.kinds.stress.transcoder import Result
from husai_core.local_job import artifact_in
from tests.husai_core.kinds.stress_job import network, run, siblings, stress

KIND = "stress.transcoder"
Pair = tuple[Artifact, list[Artifact]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    home = tmp_path_factory.mktemp("transcoder")
    transformer = network(home / "network")
    (activations,) = run("train.activations", home / "rows", transformer=[transformer])[1]
    return transformer, siblings(home / "saes", activations)


@pytest.fixture(scope="module")
def evidence(trained: Pair, tmp_path_factory: pytest.TempPathFactory) -> Result:
    result = stress(KIND, tmp_path_factory.mktemp("stress"), saes=trained[1], transformer=[trained[0]])
    assert isinstance(result, Result)
    return result


def value(evidence: Result, name: str) -> float:
    measured = evidence.statistics[name].value
    assert measured is not None
    return measured


def test_each_group_is_measured_above_its_own_nulls(evidence: Result) -> None:
    assert (evidence.input_hook, evidence.output_hook) == ("blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out")
    for suffix in ("", "_alive"):
        for arm in ("sae", "transcoder"):
            nulls = [value(evidence, f"{arm}_pwmcc{suffix}_{null}_null") for null in ("gaussian", "covariance")]
            expected = value(evidence, f"{arm}_pwmcc{suffix}") - max(nulls)
            assert value(evidence, f"{arm}_excess{suffix}") == pytest.approx(expected)
        differences = [
            value(evidence, f"sae_pwmcc{suffix}") - value(evidence, f"sae_pwmcc{suffix}_{null}_null")
            - value(evidence, f"transcoder_pwmcc{suffix}") + value(evidence, f"transcoder_pwmcc{suffix}_{null}_null")
            for null in ("gaussian", "covariance")
        ]  # fmt: skip
        assert value(evidence, f"sae_minus_transcoder{suffix}") == pytest.approx(min(differences))
    assert not evidence.leaks_label
    assert evidence.statistics["sae_minus_transcoder"].low is not None


def test_both_groups_are_compared_with_themselves_at_half(evidence: Result) -> None:
    changes = {name: change.value or 0.0 for name, change in evidence.changes.items()}
    for ending in ("", "_rescaled"):
        for null in ("gaussian", "covariance", "shuffled"):
            sae, transcoder = (changes[f"{arm}_{null}_excess{ending}"] for arm in ("sae", "transcoder"))
            assert changes[f"sae_minus_transcoder{ending}_{null}"] == pytest.approx(sae - transcoder)
        assert evidence.changes[f"sae_minus_transcoder{ending}"].low is not None
        assert f"sae_minus_transcoder{ending}_alive" in changes
    assert changes["sae_gaussian_excess"] == pytest.approx(changes["sae_pwmcc"])


def test_shuffled_rows_are_reported_but_not_judged(evidence: Result) -> None:
    shuffled = value(evidence, "sae_minus_transcoder_shuffled")
    assert shuffled == pytest.approx(
        value(evidence, "sae_shuffled_excess") - value(evidence, "transcoder_shuffled_excess")
    )
    for ending in ("", "_rescaled"):
        judged = [value(evidence, f"sae_minus_transcoder{ending}_{null}") for null in ("gaussian", "covariance")]
        assert value(evidence, f"sae_minus_transcoder{ending}") == pytest.approx(min(judged))
    assert evidence.statistics.keys() <= kinds.get(KIND).statistics.keys()


def test_a_transcoder_can_learn_the_covariance_control_but_not_the_shuffled_one(evidence: Result) -> None:
    """The best linear map is left in Gaussian rows with the joint covariance."""
    learned, shuffled = (
        [member.explained_variance for member in members]
        for members in (evidence.transcoder.covariance_members, evidence.transcoder.control_members)
    )
    assert min(learned) > max(shuffled) + 0.1


def test_transcoders_predict_the_mlp_output(evidence: Result) -> None:
    assert all(member.explained_variance > 0.3 for member in evidence.transcoder.members)
    assert all(member.explained_variance < 0.3 for member in evidence.transcoder.control_members)
    assert evidence.transcoder.pairs != evidence.sae.pairs


def retrained(home: Path, transformer: Artifact, seeds: list[int], **recipe: int) -> Result:
    """Evidence about two SAEs that came to rest in 100 steps of 118 rows, which are all there are modulo 13."""
    steps = {"tokens": 11_800, "batch_size": 118, "lr": 0.03, "decay_fraction": 1}
    (activations,) = run("train.activations", home / "rows", transformer=[transformer])[1]
    saes = siblings(home / "saes", activations, seeds, **steps, **recipe)
    assert all(json.loads((sae.path / "cfg.json").read_bytes())["husai"]["converged"] for sae in saes)
    measured = stress(KIND, home / "stress", saes=saes, transformer=[transformer])
    assert isinstance(measured, Result)
    return measured


def test_has_converged_where_every_training_has(tmp_path: Path) -> None:
    measured = retrained(tmp_path, network(tmp_path / "network", p=31), [0, 1], d_sae=8, k=1)
    assert measured.converged
    assert measured.unconverged == []


def test_has_not_converged_where_only_transcoders_of_shuffled_rows_have_not(trained: Pair, tmp_path: Path) -> None:
    measured = retrained(tmp_path, trained[0], [2, 3], d_sae=4, k=1)
    others = measured.sae.members + measured.sae.control_members + measured.transcoder.members
    assert all(member.converged for member in others)
    assert not any(member.converged for member in measured.transcoder.control_members)
    assert not measured.converged
    assert "transcoder shuffled (seeds 2, 3)" in measured.unconverged


def test_shuffled_targets_share_nothing_with_their_inputs_or_each_other(trained: Pair, tmp_path: Path) -> None:
    """Of an MLP that gives back its input, x = relu(x) - relu(-x)."""
    home, unit = tmp_path / "network", torch.eye(32)
    home.mkdir()
    weights = load_file(trained[0].path / "model.safetensors")
    mlp = {"W_in": torch.cat([unit, -unit], 1), "b_in": torch.zeros(64), "W_out": torch.cat([unit, -unit])}
    save_file(weights | {f"blocks.0.mlp.{name}": value for name, value in mlp.items()}, home / "model.safetensors")
    (home / "cfg.json").write_bytes((trained[0].path / "cfg.json").read_bytes())
    measured = retrained(tmp_path, artifact_in(home, "transformer"), [0, 1], d_sae=16, k=4)
    assert all(member.explained_variance > 0.9 for member in measured.transcoder.members)
    assert all(member.explained_variance < 0 for member in measured.transcoder.control_members)
    assert value(measured, "transcoder_pwmcc_shuffled_null") < 0.75  # decoders of rows in few directions would agree


def test_repeats_bit_for_bit_with_one_progress(trained: Pair, evidence: Result, tmp_path: Path) -> None:
    result, _, job = run(KIND, tmp_path, saes=trained[1], transformer=[trained[0]])
    assert result.model_dump_json() == evidence.model_dump_json()
    done = [done for done, _ in job.reports]
    assert done == sorted(done)
    assert {total for _, total in job.reports} == {done[-1]}


def test_refuses_a_part_without_rows(trained: Pair, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test_fraction leaves"):
        stress(KIND, tmp_path, {"test_fraction": 0.001}, saes=trained[1], transformer=[trained[0]])


def test_refuses_another_network(trained: Pair, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not trained on this transformer"):
        stress(KIND, tmp_path, saes=trained[1], transformer=[network(tmp_path / "network", seed=1)])
