"""Folders as trainers leave them: weights, and their own state beside."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from husai_core.errors import UserError
from husai_core.importers import find
from husai_core.importers.imported import Contents
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE
from tests.husai_core.importers import test_dictionary_learning, test_sparsify
from tests.husai_core.importers.test_archives import zipped
from tests.husai_core.importers.test_importers import CFG, earlier, saelens, saved

OPTIMISER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}


def laid_out(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def named(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}{name.replace('__', '.')}": data for name, data in files.items()}


def read(tmp_path: Path, files: dict[str, bytes]) -> Contents:
    (tmp_path / "scratch").mkdir()
    return find([laid_out(tmp_path / "in", files)], tmp_path / "scratch")


@pytest.fixture
def state(tmp_path: Path) -> bytes:
    """A training state."""
    return saved(tmp_path, OPTIMISER)


def test_what_saelens_leaves_is_read(tmp_path: Path, state: bytes) -> None:
    save_file({"n_dataset_processed": torch.tensor(3)}, tmp_path / "store")
    files = named("run/final_1000/", saelens(tmp_path, CFG)) | named("run/500/", saelens(tmp_path, CFG))
    files |= {
        "run/final_1000/trainer_state.pt": state,
        "run/500/trainer_state.pt": state,
        "run/final_1000/activations_store_state.safetensors": (tmp_path / "store").read_bytes(),
        "run/final_1000/activation_scaler.json": b'{"scaling_factor": null}',
        "run/final_1000/sparsity.safetensors": (tmp_path / "store").read_bytes(),
        "run/runner_cfg.json": b"{}",
    }
    contents = read(tmp_path, files)
    assert [thing.source.partition("/sae_")[0] for thing in contents.things] == ["run/final_1000", "run/500"]
    assert contents.left_out == sorted(
        name for name in files if not name.endswith(("/cfg.json", "_weights.safetensors"))
    )


@pytest.mark.parametrize("folder", ["", "saes/0/"])
def test_the_half_of_a_checkpoint_comes_with_it(tmp_path: Path, folder: str) -> None:
    trained = {"husai": {"recipe": SAERecipe(d_sae=8, k=2).model_dump(mode="json")}}
    whole = named(folder, saelens(tmp_path, CFG | trained))
    half = named(f"{folder}half/", saelens(tmp_path, CFG | trained | {"k": 1}))
    archive = zipped(tmp_path / "zip", {f"bank/{name}": data for name, data in (whole | half).items()}) / "sae.zip"
    for number, (files, place) in enumerate(
        [(whole | half, ""), ({"x.zip": archive.read_bytes(), "x.txt": b""}, "x.zip/bank/")]
    ):
        (tmp_path / str(number)).mkdir()
        contents = read(tmp_path / str(number), files)
        (thing,) = contents.things
        assert thing.source == f"{place}{folder}sae_weights.safetensors"
        assert isinstance(thing.value, SAE)
        assert thing.half is not None
        assert (thing.value.k, thing.half.k) == (2, 1)
        assert set(contents.left_out) <= {"x.txt"}


def test_the_half_of_an_sae_of_others_is_left_out(tmp_path: Path) -> None:
    half = named("half/", saelens(tmp_path, CFG))
    contents = read(tmp_path, named("", saelens(tmp_path, CFG)) | half)
    assert [thing.source for thing in contents.things] == ["sae_weights.safetensors"]
    assert contents.left_out == sorted(half)


def test_a_folder_that_is_merely_called_half_is_read(tmp_path: Path) -> None:
    contents = read(tmp_path, named("half/", saelens(tmp_path, CFG)))
    assert [thing.source for thing in contents.things] == ["half/sae_weights.safetensors"]


def test_what_sparsify_leaves_is_read(tmp_path: Path, state: bytes) -> None:
    files = {f"run/{name}": state for name in ("lr_scheduler_0.pt", "optimizer_0.pt", "state.pt", "rank_0_state.pt")}
    files["run/config.json"] = b'{"sae": {"expansion_factor": 2, "k": 3}, "batch_size": 32, "hookpoints": ["layers.1"]}'
    left = sorted(files.keys() - {"run/config.json"})
    for layer in ("layers.1", "best/layers.1"):
        files |= named(f"run/{layer}/", test_sparsify.files(tmp_path, test_sparsify.CFG))
    contents = read(tmp_path, files)
    assert {thing.source for thing in contents.things} == {
        "run/layers.1/sae.safetensors",
        "run/best/layers.1/sae.safetensors",
    }
    assert contents.left_out == left


@pytest.mark.parametrize("folder", ["checkpoints/", ""])
def test_the_steps_of_dictionary_learning_are_read(tmp_path: Path, folder: str) -> None:
    whole = test_dictionary_learning.files(tmp_path, test_dictionary_learning.TOPK)
    files = named("trainer_0/", whole)
    for step in (0, 200, 1000):
        tensors = {name: value * (step + 1) for name, value in test_dictionary_learning.TOPK.items() if name != "k"}
        files[f"trainer_0/{folder}ae_{step}.pt"] = saved(tmp_path, tensors | {"k": torch.tensor(2)})
    contents = read(tmp_path, files)
    names = [thing.source.removeprefix("trainer_0/") for thing in contents.things]
    assert sorted(names) == sorted(["ae.pt", *(f"{folder}ae_{step}.pt" for step in (0, 200, 1000))])
    assert [name for name in names if name != "ae.pt"] == [f"{folder}ae_{step}.pt" for step in (0, 200, 1000)]
    assert contents.left_out == []
    saes = {thing.source.rpartition("/")[2]: thing.value for thing in contents.things}
    last, first = saes["ae_1000.pt"], saes["ae.pt"]
    assert isinstance(last, SAE)
    assert isinstance(first, SAE)
    assert torch.allclose(last.W_dec, 1001 * first.W_dec)


def test_steps_alone_are_read_with_the_configuration_above(tmp_path: Path) -> None:
    whole = test_dictionary_learning.files(tmp_path, test_dictionary_learning.TOPK)
    contents = read(tmp_path, {"t/config.json": whole["config__json"], "t/checkpoints/ae_9.pt": whole["ae__pt"]})
    assert [thing.source for thing in contents.things] == ["t/checkpoints/ae_9.pt"]


def test_a_backup_holds_the_dictionary_beside_its_optimiser(tmp_path: Path) -> None:
    backup = {"step": 100, "ae": test_dictionary_learning.TOPK, "optimizer": OPTIMISER, "norm_factor": 1.0}
    (thing,) = read(tmp_path, named("", test_dictionary_learning.files(tmp_path, backup))).things
    assert isinstance(thing.value, SAE)
    assert thing.value.k == 2


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("a/sae_weights.safetensors", "^a: cfg.json describes weights that are missing$"),
        ("a/cfg.json", "^a: sae_weights.safetensors needs cfg.json beside it$"),
        ("d/ae.pt", "^d: config.json describes weights that are missing$"),
    ],
)
def test_weights_and_configurations_that_lost_each_other_are_no_litter(tmp_path: Path, lost: str, message: str) -> None:
    files = named("b/", saelens(tmp_path, CFG)) | named("a/", saelens(tmp_path, CFG))
    files |= named("d/", test_dictionary_learning.files(tmp_path, test_dictionary_learning.TOPK))
    del files[lost]
    with pytest.raises(UserError, match=message):
        read(tmp_path, files)


def test_unknown_weights_in_a_folder_of_their_own_are_no_litter(tmp_path: Path) -> None:
    files = named("a/", saelens(tmp_path, CFG)) | {"b/params.npz": b"x"}
    with pytest.raises(UserError, match=r"^b: params\.npz is of no known layout"):
        read(tmp_path, files)


@pytest.mark.parametrize(
    "content", [{"weight": torch.ones(2)}, [torch.ones(2)], {"model_state_dict": {"weight": torch.ones(2)}}]
)
def test_any_other_pt_file_is_told_which_ones_are_read(tmp_path: Path, content: Any) -> None:
    with pytest.raises(UserError, match=r"a \.pt file is read if the earlier HUSAI wrote it, or dictionary_learning"):
        read(tmp_path, {"a.pt": saved(tmp_path, content)})


def test_an_earlier_checkpoint_keeps_its_meaning(tmp_path: Path) -> None:
    contents = read(tmp_path, {"sae_final.pt": saved(tmp_path, earlier()), "metrics.json": json.dumps({}).encode()})
    assert [thing.format for thing in contents.things] == ["earlier"]
    assert contents.left_out == ["metrics.json"]
