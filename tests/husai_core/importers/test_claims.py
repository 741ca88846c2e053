"""What the files that trainers leave say of a training, in the layouts that their current versions write."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from husai_core.importers.claims import Claim
from husai_core.importers.imported import Contents
from husai_core.saes.recipe import SAERecipe, unsaid
from husai_core.saes.sae import SAE
from tests.husai_core.importers import test_dictionary_learning, test_sparsify
from tests.husai_core.importers.test_folders import named, read
from tests.husai_core.importers.test_importers import D, N, saelens, saved

DETAILS = {"aux_loss_coefficient": 1.0, "decoder_init_norm": 0.1}
TRAINED = {"training_architecture": "topk", "training_architecture_details": DETAILS, "l0": 1.9}
SAELENS_CFG = {
    "architecture": "topk",
    "k": 2,
    "d_in": D,
    "d_sae": N,
    "normalize_activations": "none",
    "rescale_acts_by_decoder_norm": True,
    "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.2.hook_resid_post", **TRAINED},
}
SAE_CFG = {"architecture": "topk", "k": 2, "d_in": D, "d_sae": N, "normalize_activations": "none", **DETAILS}
RUNNER = {
    "sae": SAE_CFG,
    "training_tokens": 40_000,
    "train_batch_size_tokens": 500,
    "lr": 0.003,
    "lr_warm_up_steps": 8,
    "lr_decay_steps": 16,
    "lr_scheduler_name": "constant",
    "adam_beta1": 0.9,
    "dead_feature_window": 10,
    "seed": 7,
}
BUDGET = {"tokens": 40_000, "batch_size": 500, "lr": 0.003, "warmup_fraction": 0.1, "decay_fraction": 0.2}
TOPK = {"architecture": "topk", "d_sae": N, "k": 2, **BUDGET, "dead_after_tokens": 5000, "normalise": False}
TRAINER = {"trainer_class": "AutoEncoderTopK", "dict_class": "AutoEncoderTopK", "k": 2, "seed": 3}
TRAINER |= {"activation_dim": D, "dict_size": N, "lr": 1e-3, "steps": 120, "auxk_alpha": 1 / 32}
TRAINER |= {"warmup_steps": 12, "decay_start": 90, "layer": 2, "submodule_name": "resid_post_layer_2"}
RUN = {"sae": {"k": 3}, "batch_size": 16, "optimizer": "signum", "lr": 1e-3, "auxk_alpha": 0.03, "loss_fn": "fvu"}


def saelens_files(tmp_path: Path, folder: str, cfg: Any = SAELENS_CFG, runner: Any = RUNNER) -> dict[str, bytes]:
    return named(folder, saelens(tmp_path, cfg)) | {f"{folder}runner_cfg.json": json.dumps(runner).encode()}


def claim(contents: Contents) -> Claim:
    (thing,) = contents.things
    return thing.training


def test_a_saelens_run_says_its_whole_recipe(tmp_path: Path) -> None:
    contents = read(tmp_path, saelens_files(tmp_path, "seed7/"))
    said = claim(contents)
    assert (said.recipe, said.seed, said.step, unsaid(said.recipe)) == (TOPK, 7, None, [])
    assert said.notes == ("no field of a recipe holds aux_loss_coefficient = 1.0",)
    assert SAERecipe.model_validate(said.recipe).steps == 80
    assert contents.left_out == []
    (thing,) = contents.things
    assert isinstance(thing.value, SAE)
    assert thing.value.provenance["runner"]["lr"] == 0.003


@pytest.mark.parametrize(
    ("runner", "recipe", "notes"),
    [
        ({"lr_scheduler_name": "cosineannealing", "adam_beta1": 0.8}, TOPK, ["cosineannealing", "adam_beta1 = 0.8"]),
        ({"sae": SAE_CFG | {"normalize_activations": "expected_average_only_in"}}, TOPK | {"normalise": True}, []),
        ({"sae": SAE_CFG | {"architecture": "batchtopk"}}, TOPK | {"architecture": "batchtopk"}, []),
        ({"lr": True, "training_tokens": -4, "seed": "x"}, {"architecture": "topk", "d_sae": N, "k": 2}, []),
        ({"sae": SAE_CFG | {"k": 99}}, {}, ["no recipe here: .*k = 99"]),
        ({"sae": SAE_CFG | {"architecture": ["a"]}}, {}, []),
        ([], {"architecture": "topk", "d_sae": N, "k": 2}, []),
    ],
)
def test_what_a_recipe_cannot_hold_is_a_note(
    tmp_path: Path, runner: Any, recipe: dict[str, Any], notes: list[str]
) -> None:
    runner = RUNNER | runner if isinstance(runner, dict) else runner
    said = claim(read(tmp_path, saelens_files(tmp_path, "a/", runner=runner)))
    assert recipe.items() <= said.recipe.items()
    assert bool(recipe) is bool(said.recipe)
    text = " ".join(said.notes)
    assert all(re.search(note, text) for note in notes)


def test_a_jumprelu_sae_does_not_tell_whether_it_was_trained_as_one(tmp_path: Path) -> None:
    cfg = SAELENS_CFG | {"architecture": "jumprelu", "metadata": {"hook_name": "h"}}
    cfg = {name: value for name, value in cfg.items() if name != "k"}
    threshold = read(tmp_path, named("", saelens(tmp_path, cfg, threshold=torch.ones(N))))
    assert claim(threshold).recipe == {}


def test_the_states_of_a_training_are_left_out_beside_what_it_ended_in(tmp_path: Path) -> None:
    training = SAELENS_CFG | {"architecture": "batchtopk"}
    files = saelens_files(tmp_path, "seed0/")
    for state in ("20000", "final_40000"):
        files |= saelens_files(tmp_path, f"checkpoints/ab12/{state}/", training)
        files[f"checkpoints/ab12/{state}/trainer_state.pt"] = saved(tmp_path, {"step": 1})
    contents = read(tmp_path, files)
    assert [thing.source for thing in contents.things] == ["seed0/sae_weights.safetensors"]
    assert contents.left_out == ["checkpoints/ab12/20000/", "checkpoints/ab12/final_40000/"]


def test_states_alone_are_read_with_their_steps(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for state in ("20000", "final_40000"):
        files |= saelens_files(tmp_path, f"ab12/{state}/") | {f"ab12/{state}/trainer_state.pt": saved(tmp_path, {})}
    contents = read(tmp_path, files)
    assert {thing.source.split("/")[1]: thing.training.step for thing in contents.things} == {
        "20000": 20_000,
        "final_40000": None,
    }


def test_a_sparsify_run_says_its_settings_two_folders_above(tmp_path: Path) -> None:
    files = {"run/config.json": json.dumps(RUN).encode(), "run/state.pt": saved(tmp_path, {"global_step": 3})}
    files |= named("run/layers.2.mlp/seed5/", test_sparsify.files(tmp_path, test_sparsify.CFG))
    contents = read(tmp_path, files)
    (thing,) = contents.things
    said = thing.training
    assert isinstance(thing.value, SAE)
    assert thing.value.hook_name == "blocks.2.hook_mlp_out"
    assert thing.value.provenance["run"]["optimizer"] == "signum"
    assert (said.seed, unsaid(said.recipe)) == (5, ["tokens", "batch_size"])
    assert said.recipe == {
        "architecture": "topk",
        "d_sae": test_sparsify.N,
        "k": 3,
        "lr": 1e-3,
        "aux_coefficient": 0.03,
        "normalise": False,
    }
    assert said.notes == ("no field of a recipe holds optimizer = signum",)
    assert contents.left_out == ["run/state.pt"]


@pytest.mark.parametrize("batch", [None, 512])
def test_a_dictionary_learning_trainer_says_steps_but_rows_only_of_a_buffer(tmp_path: Path, batch: int | None) -> None:
    config = {"trainer": TRAINER} | ({"buffer": {"out_batch_size": batch}} if batch else {})
    files = test_dictionary_learning.files(tmp_path, test_dictionary_learning.TOPK)
    contents = read(
        tmp_path,
        {"t/config.json": json.dumps(config).encode(), "t/ae.pt": files["ae__pt"], "t/ae_60.pt": files["ae__pt"]},
    )
    last, step = contents.things
    assert isinstance(last.value, SAE)
    assert last.value.hook_name == "blocks.2.hook_resid_post"
    assert (last.training.step, step.training.step, last.training.seed) == (None, 60, 3)
    assert unsaid(last.training.recipe) == ([] if batch else ["tokens", "batch_size"])
    assert last.training.recipe.get("tokens") == (120 * 512 if batch else None)
    expected = {"warmup_fraction": 0.1, "decay_fraction": 0.25, "aux_coefficient": 1 / 32, "lr": 1e-3}
    assert expected.items() <= last.training.recipe.items()
