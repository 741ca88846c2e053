from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from husai_core.activations import store
from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs
from husai_core.kinds.train import activations
from husai_core.kinds.train.activations import Spec
from husai_core.local_job import LocalJob
from husai_core.models import modular

CFG = modular.config(p=13, n_layers=2, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type=None)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    path = tmp_path / "network"
    path.mkdir()
    facts = {"dataset": {"p": 13, "seed": 0, "position": "answer"}, "leaks_label": False}
    modular.save(path, modular.build(CFG, 7), CFG | facts)
    return Inputs({"transformer": [Artifact("d" * 64, "transformer", path, [0.0])]})


def test_rows_are_those_of_the_network(tmp_path: Path, inputs: Inputs, local_job: Any) -> None:
    result = activations.run(Spec(hook_name="blocks.1.hook_mlp_out"), inputs, local_job(tmp_path))
    stored = store.load(tmp_path / "activations")
    model = modular.load(inputs.one("transformer").path)
    _, cache = model.run_with_cache(torch.cat([stored.tokens, torch.zeros(169, 2, dtype=torch.int64)], 1))
    assert torch.allclose(stored.rows[:], cache["blocks.1.hook_mlp_out"][:, 4], atol=1e-6)
    assert stored.tokens.shape == (169, 5)  # the answer token is not part of the context
    assert (stored.model_digest, stored.p, stored.source) == ("d" * 64, 13, "model")
    assert result.rows_by_split == {"train": 118, "validation": 17, "test": 34}
    assert torch.allclose(stored.moments.mean.float(), stored.rows[:].mean(0), atol=1e-6)
    assert result.effective_rank == stored.moments.effective_rank > 1
    assert not result.leaks_label


def test_an_untrained_network_has_other_weights(tmp_path: Path, inputs: Inputs, local_job: Any) -> None:
    for name, spec in {"model": Spec(), "untrained": Spec(source="untrained", untrained_seed=1)}.items():
        activations.run(spec, inputs, local_job(tmp_path / name))
    trained, fresh = (store.load(tmp_path / name / "activations") for name in ("model", "untrained"))
    assert trained.rows.shape == fresh.rows.shape
    assert not torch.allclose(trained.rows[:], fresh.rows[:])
    assert torch.equal(trained.split, fresh.split)
    assert fresh.model_digest is None
    wanted = modular.activations(modular.build(CFG, 1), fresh.tokens, [fresh.hook_name], "answer")
    assert torch.equal(fresh.rows[:], wanted[fresh.hook_name])


def test_a_context_that_many_pairs_share_is_one_row(tmp_path: Path, local_job: Any) -> None:
    cfg = modular.config(p=23, n_layers=1, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type=None)
    modular.save(tmp_path, modular.build(cfg, 7), cfg | {"dataset": {"p": 23}, "leaks_label": False})
    inputs = Inputs({"transformer": [Artifact("d" * 64, "transformer", tmp_path, [0.0])]})
    result = activations.run(Spec(position="first_operand"), inputs, local_job(tmp_path / "rows"))
    stored = store.load(tmp_path / "rows" / "activations")
    assert stored.tokens.tolist() == [[23, a] for a in range(23)]
    assert len(stored.rows[:].unique(dim=0)) == result.n_rows == 23
    assert set(stored.label.tolist()) == {-1}  # the first operand leaves the sum open
    with pytest.raises(UserError, match="only 1 different contexts at position bos"):
        activations.run(Spec(position="bos"), inputs, local_job(tmp_path / "bos"))


@pytest.mark.parametrize("structureless", [False, True])
def test_synthetic_rows_need_no_network(tmp_path: Path, local_job: Any, structureless: bool) -> None:
    world = {"rows": 500, "n_features": 24, "d_model": 12}
    spec = Spec.model_validate({"source": "synthetic", "structureless": structureless, "world": world})
    result = activations.run(spec, Inputs({}), local_job(tmp_path))
    stored = store.load(tmp_path / "activations")
    assert (result.n_rows, result.d_model, result.rows_by_split["test"]) == (500, 12, 100)
    assert (stored.source, stored.p, stored.model_digest) == ("synthetic", None, None)
    assert bool((stored.rows[:] == 0).all(1).any()) is not structureless  # a row without a firing feature is zero


def test_equal_specs_give_equal_bytes(tmp_path: Path, inputs: Inputs, local_job: Any) -> None:
    for name in ("one", "two"):
        activations.run(Spec(), inputs, local_job(tmp_path / name))
    for file in ("activations.safetensors", "cfg.json"):
        first, second = ((tmp_path / name / "activations" / file).read_bytes() for name in ("one", "two"))
        assert first == second


@pytest.mark.parametrize("source", ["model", "untrained"])
def test_a_missing_transformer_is_told(tmp_path: Path, local_job: Any, source: str) -> None:
    with pytest.raises(UserError, match="needs a transformer"):
        activations.run(Spec.model_validate({"source": source}), Inputs({}), local_job(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position": "answer_token"}, "leaks_label"),
        ({"structureless": True}, "structureless is for source synthetic, not model"),
        ({"source": "untrained", "max_rows": 100}, "max_rows is for source language, not untrained"),
        (
            {"source": "synthetic", "untrained_seed": 1},
            "untrained_seed is for source untrained or language, not synthetic",
        ),
        ({"source": "untrained", "untrained": "all"}, "untrained is for source language, not untrained"),
        ({"source": "language", "model": "m", "untrained_seed": 1}, "for untrained all or keep_embeddings, not no"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "no rows"),
        ({"source": "synthetic", "world": {"n_features": 2, "active": 3}}, "active"),
        ({"source": "synthetic", "world": {"rows": 10_000_000, "n_features": 101}}, "more than 1000000000 numbers"),
    ],
)
def test_impossible_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(fields)


def test_an_input_that_the_source_does_not_read_is_told(inputs: Inputs, local_job: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="transformer is for source model or untrained or language, not synthetic"):
        activations.run(Spec(source="synthetic"), inputs, local_job(tmp_path))


def test_several_hooks_of_one_network_give_one_artifact_each(tmp_path: Path, inputs: Inputs) -> None:
    hooks = ["blocks.1.hook_mlp_out", "blocks.0.hook_resid_post"]
    job = LocalJob(tmp_path)
    result = activations.run(Spec(hook_names=hooks), inputs, job)
    stored = [store.load(path) for _, _, path in job.outputs]
    assert [rows.hook_name for rows in stored] == [hook.hook_name for hook in result.hooks] == hooks
    assert not torch.equal(stored[0].rows[:], stored[1].rows[:])
    assert torch.equal(stored[0].split, stored[1].split)


def test_heads_give_rows_of_their_width_together(tmp_path: Path, inputs: Inputs, local_job: Any) -> None:
    result = activations.run(Spec(hook_name="blocks.1.attn.hook_z"), inputs, local_job(tmp_path))
    model = modular.load(inputs.one("transformer").path)
    rows = store.load(tmp_path / "activations")
    _, cache = model.run_with_cache(torch.cat([rows.tokens, torch.zeros(169, 2, dtype=torch.int64)], 1))
    assert result.d_model == 2 * 8
    assert torch.allclose(rows.rows[:], cache["blocks.1.attn.hook_z"][:, 4].flatten(1), atol=1e-6)


def test_a_language_model_is_no_network_for_addition(tmp_path: Path, local_job: Any) -> None:
    (tmp_path / "cfg.json").write_text('{"architecture": "GPTNeoXForCausalLM", "leaks_label": false}')
    inputs = Inputs({"transformer": [Artifact("d" * 64, "transformer", tmp_path, [0.0])]})
    with pytest.raises(UserError, match="is a language model"):
        activations.run(Spec(), inputs, local_job(tmp_path))
