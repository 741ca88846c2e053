from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs
from husai_core.kinds.train import transformer
from husai_core.kinds.train.transformer import PRESETS, Result, Spec

SMALL: dict[str, Any] = {"p": 13, "d_model": 32, "d_mlp": 64, "batch_size": 64, "steps": 40, "evaluate_every": 10}
NONE = Inputs({})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_default_network_adds_on_pairs_it_never_saw(tmp_path: Path, local_job: Any) -> None:
    job = local_job(tmp_path)
    result: Result = transformer.run(Spec(), NONE, job)
    assert result.test_accuracy >= 0.99
    assert result.stopped_early
    assert result.leak.passed
    assert result.leak.operand_randomised_accuracy <= 2 / 113
    assert result.leak.answer_randomised_accuracy == result.leak.accuracy
    assert result.grokking_step is not None
    assert job.steps == [point.step for point in result.curve]
    assert job.reports[-1][0] == result.steps


def test_reading_the_answer_token_is_found_out(tmp_path: Path, local_job: Any) -> None:
    """The published protocol reaches 100 % at once without looking at the operands."""
    spec = Spec(**PRESETS["reference-2026-02"] | {"p": 31, "d_model": 64, "d_mlp": 128, "batch_size": 128})
    result = transformer.run(spec, NONE, local_job(tmp_path))
    assert result.test_accuracy >= 0.95
    assert result.leak.operand_randomised_accuracy >= 0.95
    assert result.leak.answer_randomised_accuracy <= 4 / 31
    assert not result.leak.passed
    assert result.leaks_label


@pytest.mark.parametrize("change", [{}, {"n_layers": 2, "normalization": "LN", "act_fn": "gelu"}])
def test_equal_seeds_give_equal_bytes(tmp_path: Path, local_job: Any, change: dict[str, Any]) -> None:
    item, two, other = (
        transformer.run(Spec(**SMALL | change, seed=seed), NONE, local_job(tmp_path / name))
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    weights = {name: _weights(tmp_path / name) for name in ("one", "two", "other")}
    assert item == two != other
    assert weights["one"] == weights["two"] != weights["other"]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, local_job: Any) -> None:
    whole = local_job(tmp_path / "whole", drain_at=20)
    expected = transformer.run(Spec(**SMALL), NONE, whole)
    assert len(whole.committed) == 1
    resumed = local_job(tmp_path / "resumed", resume=whole.committed[0])
    assert transformer.run(Spec(**SMALL), NONE, resumed) == expected
    assert resumed.steps == [30, 40]
    assert _weights(tmp_path / "resumed") == _weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 130, "n_heads": 4}, "not a multiple"),
        ({"position": "answer_token"}, "leaks_label"),
        ({"leaks_label": True}, "leaks_label"),
        ({"train_fraction": 0.9, "validation_fraction": 0.1}, "test"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"dropout": 0.1}, "dropout"),
    ],
)
def test_impossible_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec(**fields)


def test_divergence_is_told(tmp_path: Path, local_job: Any) -> None:
    with pytest.raises(UserError, match="diverged"):
        transformer.run(Spec(**SMALL | {"lr": 1.0, "weight_decay": 1e30}), NONE, local_job(tmp_path))


def test_text_for_addition_is_refused(tmp_path: Path, local_job: Any) -> None:
    inputs = Inputs({"text": [Artifact("d" * 64, "upload", tmp_path, [0.0])]})
    with pytest.raises(UserError, match="text is only for dataset text"):
        transformer.run(Spec(**SMALL), inputs, local_job(tmp_path / "job"))


def _weights(directory: Path) -> bytes:
    return (directory / "transformer" / "model.safetensors").read_bytes()
