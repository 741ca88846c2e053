from __future__ import annotations

from pathlib import Path

import pytest

from husai_core.kinds.base import Artifact, KindError
from husai_core.kinds.stress.transcoder import Result
from tests.husai_core.kinds.stress_job import network, run, siblings, stress

KIND = "stress.transcoder"
Pair = tuple[Artifact, list[Artifact]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    home = tmp_path_factory.mktemp("transcoder")
    transformer = network(home / "network")
    (activations,) = run("train.activations", home / "rows", transformer=[transformer])[1]
    return transformer, siblings(home / "saes", activations)


@pytest.fixture(scope="module")
def evidence(given: Pair, tmp_path_factory: pytest.TempPathFactory) -> Result:
    result = stress(KIND, tmp_path_factory.mktemp("stress"), saes=given[1], transformer=[given[0]])
    assert isinstance(result, Result)
    return result


def value(evidence: Result, name: str) -> float:
    found = evidence.statistics[name].value
    assert found is not None
    return found


def test_each_group_is_measured_above_its_own_nulls(evidence: Result) -> None:
    assert (evidence.input_hook, evidence.output_hook) == ("blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out")
    for suffix in ("", "_alive"):
        for arm in ("sae", "transcoder"):
            nulls = [value(evidence, f"{arm}_pwmcc{suffix}_{null}_null") for null in ("gaussian", "shuffled")]
            expected = value(evidence, f"{arm}_pwmcc{suffix}") - max(nulls)
            assert value(evidence, f"{arm}_excess{suffix}") == pytest.approx(expected)
        differences = [
            value(evidence, f"sae_pwmcc{suffix}") - value(evidence, f"sae_pwmcc{suffix}_{null}_null")
            - value(evidence, f"transcoder_pwmcc{suffix}") + value(evidence, f"transcoder_pwmcc{suffix}_{null}_null")
            for null in ("gaussian", "shuffled")
        ]  # fmt: skip
        assert value(evidence, f"sae_minus_transcoder{suffix}") == pytest.approx(min(differences))
    assert not evidence.leaks_label
    assert evidence.statistics["sae_minus_transcoder"].low is not None


def test_transcoders_predict_the_mlp_output(evidence: Result) -> None:
    assert all(member.explained_variance > 0.3 for member in evidence.transcoder.members)
    assert all(member.explained_variance < 0.3 for member in evidence.transcoder.control_members)
    assert evidence.transcoder.pairs != evidence.sae.pairs


def test_repeats_bit_for_bit_with_one_progress(given: Pair, evidence: Result, tmp_path: Path) -> None:
    result, _, job = run(KIND, tmp_path, saes=given[1], transformer=[given[0]])
    assert result.model_dump_json() == evidence.model_dump_json()
    done = [done for done, _ in job.reported]
    assert done == sorted(done)
    assert {total for _, total in job.reported} == {done[-1]}


def test_refuses_a_part_without_rows(given: Pair, tmp_path: Path) -> None:
    with pytest.raises(KindError, match="test_fraction leaves"):
        stress(KIND, tmp_path, {"test_fraction": 0.001}, saes=given[1], transformer=[given[0]])


def test_refuses_another_network(given: Pair, tmp_path: Path) -> None:
    with pytest.raises(KindError, match="not trained on this transformer"):
        stress(KIND, tmp_path, saes=given[1], transformer=[network(tmp_path / "network", seed=1)])
