import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from husai_core.errors import UserError
from husai_core.importers import archives, find

D, N = 4, 6
CFG: dict[str, Any] = {"architecture": "topk", "k": 2, "d_in": D, "d_sae": N, "metadata": {"hook_name": "h"}}


def tensors(**other: Tensor) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    state = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (D, N)}
    return {name: torch.randn(*shape, generator=source) for name, shape in state.items()} | {
        name.replace("__", "."): value for name, value in other.items()
    }


def earlier(**fields: Any) -> dict[str, Any]:
    return {"sae_state_dict": tensors(), "k": 2, "config": {"architecture": "topk"}} | fields


def read(tmp_path: Path, **files: bytes) -> Any:
    (tmp_path / "in").mkdir()
    (tmp_path / "scratch").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name.replace("__", ".")).write_bytes(content)
    (thing,) = find([tmp_path / "in"], tmp_path / "scratch").things
    return thing.value


def saved(tmp_path: Path, content: Any) -> bytes:
    torch.save(content, tmp_path / "saved")
    return (tmp_path / "saved").read_bytes()


def saelens(tmp_path: Path, cfg: Any, **other: Tensor) -> dict[str, bytes]:
    state = {"W_enc": torch.ones(D, N), "b_enc": torch.zeros(N), "W_dec": torch.ones(N, D), "b_dec": torch.zeros(D)}
    save_file(state | other, tmp_path / "saved")
    text = cfg if isinstance(cfg, bytes) else json.dumps(cfg).encode()
    return {"cfg__json": text, "sae_weights__safetensors": (tmp_path / "saved").read_bytes()}


def refused(tmp_path: Path, message: str, **files: bytes) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, **files)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("k", [2, 2.0, torch.tensor(2), torch.tensor([2.0])])
def test_k_is_a_whole_number_however_it_was_saved(tmp_path: Path, k: Any) -> None:
    assert read(tmp_path, a__pt=saved(tmp_path, earlier(k=k))).k == 2


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in tensors().items()}
    sae = read(tmp_path, a__pt=saved(tmp_path, earlier(sae_state_dict=state)))
    assert torch.equal(sae.W_dec, state["decoder.weight"].float().T)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": torch.tensor([1, 2])}, "k: Input should be a valid integer"),
        ({"k": "abc"}, "k: Input"),
        ({"k": float("nan")}, "k: Input"),
        ({"k": True}, "k: Input"),
        ({"config": [1]}, "config is not a dictionary"),
        ({"config": "topk"}, "config is not a dictionary"),
        ({"config": torch.ones(2)}, "config is not a dictionary"),
        ({"config": {"architecture": ["topk"]}}, "architecture: Input"),
        ({"config": {"architecture": {"a": 1}}}, "architecture: Input"),
        ({"sae_state_dict": {1: torch.ones(2)}}, "neither sae_state_dict"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N, D).to_sparse())}, "dense tensor of real"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N, D, device="meta"))}, "dense tensor of real"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N, D, dtype=torch.complex64))}, "dense tensor of real"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N, D, dtype=torch.int64))}, "dense tensor of real"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N, 0))}, "dense tensor of real"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(1).expand(10**6, 10**6))}, "repeats its values"),
        ({"sae_state_dict": tensors(encoder__weight=torch.ones(N))}, "are matrices"),
        ({"metrics": endless()}, "nested more than"),
    ],
)
def test_an_earlier_sae_with_odd_parts_is_one_clear_line(tmp_path: Path, fields: Any, message: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        refused(tmp_path, message, a__pt=saved(tmp_path, earlier(**fields)))


@pytest.mark.parametrize("rows", [torch.ones(20, 0), torch.ones(20, 3, dtype=torch.complex64), torch.eye(20).int()])
def test_rows_are_real_floating_numbers(tmp_path: Path, rows: Tensor) -> None:
    refused(tmp_path, "rows is not a dense tensor", a__pt=saved(tmp_path, rows))


def test_a_saelens_checkpoint_is_read(tmp_path: Path) -> None:
    sae = read(tmp_path, **saelens(tmp_path, CFG))
    assert (sae.k, sae.hook_name, sae.d_in) == (2, "h", D)


def test_what_saelens_leaves_beside_a_checkpoint_is_no_obstacle(tmp_path: Path) -> None:
    beside = {"sparsity__safetensors": b"", "runner_cfg__json": b"{}"}
    assert read(tmp_path, **saelens(tmp_path, CFG), **beside).k == 2


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (CFG | {"metadata": None}, "metadata: Input"),
        (CFG | {"metadata": [1]}, "metadata: Input"),
        (CFG | {"metadata": {"hook_name": 5}}, "metadata.hook_name: Input"),
        (CFG | {"d_in": "4"}, "d_in: Input"),
        (CFG | {"d_in": D + 1}, "says d_in = 5"),
        (CFG | {"architecture": ["topk"]}, "architecture: Input"),
        (CFG | {"k": "2"}, "k: Input"),
        (CFG | {"husai": {"position": 3}}, "husai.position: Input"),
        ([], "cfg.json: Input"),
        (b"[" * 100_000, "nested too deeply"),
        (CFG | {"husai": {"x": json.loads("[" * 150 + "]" * 150)}}, "nested more than"),
        (b'{"architecture": NaN}', "NaN is not JSON"),
        (b'{"architecture": "\\ud800"}', "cannot be read"),
    ],
)
def test_a_saelens_config_of_wrong_types_is_one_clear_line(tmp_path: Path, cfg: Any, message: str) -> None:
    refused(tmp_path, message, **saelens(tmp_path, cfg))


def test_what_an_exported_job_has_beside_its_outputs_is_no_obstacle(tmp_path: Path) -> None:
    beside = {"result__json": b"{}", "manifest__json": b"{}"}
    whole = saelens(tmp_path, CFG) | beside
    assert read(tmp_path, **whole).k == 2
    with zipfile.ZipFile(tmp_path / "job", "w") as archive:
        for name, content in whole.items():
            folder = "" if name in beside else "saes/0/"
            archive.writestr(folder + name.replace("__", "."), content)
    (tmp_path / "zip").mkdir()
    assert read(tmp_path / "zip", job__zip=(tmp_path / "job").read_bytes()).k == 2


def test_things_are_named_by_their_folders(tmp_path: Path) -> None:
    files = {name.replace("__", "."): content for name, content in saelens(tmp_path, CFG).items()}
    (tmp_path / "scratch").mkdir()
    for folder in ("in", "in/10", "in/2", "in/a", "in/a/b"):
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "in" / "a" / "more.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            archive.writestr(f"c/{name}", content)
    things = find([tmp_path / "in"], tmp_path / "scratch").things
    folders = [thing.source.rpartition("/")[0] for thing in things]
    assert set(folders) == {"", "a", "a/b", "a/more.zip", "a/more.zip/c", "2", "10"}
    assert folders.index("2") < folders.index("10")
    (tmp_path / "in" / "a" / "b" / "cfg.json").unlink()
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=r"^a/b: sae_weights\.safetensors needs cfg\.json beside it$"):
        find([tmp_path / "in"], tmp_path / "again")


@pytest.mark.parametrize("name", ["sae_weights", "sae", "model", "activations", "activations-00000"])
def test_weights_alone_say_what_is_missing(tmp_path: Path, name: str) -> None:
    message = f"^{name}.safetensors needs cfg.json beside it$"
    refused(tmp_path, message, **{f"{name}__safetensors": b""})


@pytest.mark.parametrize("name", ["cfg", "config"])
def test_a_config_alone_says_what_is_missing(tmp_path: Path, name: str) -> None:
    refused(tmp_path, f"^{name}.json describes weights that are missing$", **{f"{name}__json": b"{}"})


def test_a_name_of_no_layout_is_told_before_the_config_beside_it(tmp_path: Path) -> None:
    refused(tmp_path, "^weights.safetensors is of no known layout", weights__safetensors=b"", cfg__json=b"{}")


class Thing:
    """An object that a file names."""


def test_nobody_is_told_to_unpickle_a_file(tmp_path: Path) -> None:
    message = "^a.pt is damaged or holds more than plain tensors: Python objects are never loaded$"
    refused(tmp_path, message, a__pt=saved(tmp_path, {"sae_state_dict": Thing()}))


def test_a_shared_value_is_not_written_out_where_it_is_referred_to(tmp_path: Path) -> None:
    tree: Any = 1
    for _ in range(60):
        tree = [tree, tree]
    refused(tmp_path, "more than 100000 plain values", a__pt=saved(tmp_path, earlier(metrics=tree)))


@pytest.mark.parametrize("weights", [torch.ones(D, N, dtype=torch.int32), torch.ones(D, N, dtype=torch.complex64)])
def test_saelens_weights_are_real_floating_numbers(tmp_path: Path, weights: Tensor) -> None:
    refused(tmp_path, "W_enc is empty or not of real", **saelens(tmp_path, CFG, W_enc=weights))


@pytest.mark.parametrize("name", ["a" * 300, "/etc/a.pt", "../a.pt", "a/../b.pt", "é" * 200])
def test_an_archive_with_unsafe_names_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr(name, b"x")
    refused(tmp_path, "is damaged: an entry is named", a__zip=(tmp_path / "z").read_bytes())


@pytest.mark.parametrize("name", ["a__zip", "a__pt"])
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pt", bytes(10**6))
    refused(tmp_path, "unpacks to 1000000 bytes", **{name: (tmp_path / "z").read_bytes()})


def test_the_archives_of_an_import_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = saelens(tmp_path, CFG)
    size = sum(map(len, files.values()))
    for folder in ("scratch", "in/a", "in/b"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("a", "b"):
        with zipfile.ZipFile(tmp_path / "in" / folder / "z.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name.replace("__", "."), content)
    monkeypatch.setattr(archives, "MOST_BYTES", 2 * size)
    assert len(find([tmp_path / "in"], tmp_path / "scratch").things) == 2
    monkeypatch.setattr(archives, "MOST_BYTES", 2 * size - 1)
    (tmp_path / "again").mkdir()
    with pytest.raises(UserError, match=f"z.zip unpacks to {size} bytes"):
        find([tmp_path / "in"], tmp_path / "again")


def test_an_archive_of_another_compression_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.pt", b"x")
    refused(tmp_path, "neither stored nor deflated", a__zip=(tmp_path / "z").read_bytes())
