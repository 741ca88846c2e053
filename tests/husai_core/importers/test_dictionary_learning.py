import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from husai_core.importers import find
from husai_core.saes.sae import SAE
from tests.husai_core.importers.test_importers import read, refused, saved

D, N = 4, 6
LINEAR = {"encoder.weight": (N, D), "encoder.bias": (N,), "decoder.weight": (D, N), "b_dec": (D,)}
GATED = {"gate_bias": (N,), "r_mag": (N,), "mag_bias": (N,), "decoder_bias": (D,)}
OWN = {"W_enc": (D, N), "b_enc": (N,), "W_dec": (N, D), "b_dec": (D,)}


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    return {name: torch.randn(*shape, generator=source) for name, shape in shapes.items()}


TOPK = drawn(LINEAR) | {"k": torch.tensor(2, dtype=torch.int), "threshold": torch.tensor(-1.0)}


def files(tmp_path: Path, state: Any, config: Any = None, **trainer: Any) -> dict[str, bytes]:
    said = {"dict_class": "AutoEncoderTopK", "activation_dim": D, "dict_size": N, "k": 2} | trainer
    content = {"trainer": said} if config is None else config
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return {"ae__pt": saved(tmp_path, state), "config__json": text}


def test_k_may_stand_in_either_file(tmp_path: Path) -> None:
    bare = {name: value for name, value in TOPK.items() if name in LINEAR}
    for number, (state, k) in enumerate([(TOPK, None), (bare, 2), (TOPK, 2)]):
        (tmp_path / str(number)).mkdir()
        assert read(tmp_path / str(number), **files(tmp_path, state, k=k)).k == 2


def test_a_threshold_for_all_latents_becomes_one_for_each(tmp_path: Path) -> None:
    sae = read(tmp_path, **files(tmp_path, TOPK | {"threshold": torch.tensor(0.5)}, dict_class="BatchTopKSAE"))
    assert (sae.architecture, sae.k, sae.apply_b_dec_to_input) == ("jumprelu", None, True)
    assert torch.equal(sae.threshold, torch.full((N,), 0.5))


@pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_threshold_that_was_never_set_is_told(tmp_path: Path, dict_class: str) -> None:
    state = TOPK | {"threshold": torch.tensor(-1.0)}
    if dict_class.startswith("Matryoshka"):
        state = drawn(OWN) | {"threshold": torch.tensor(-1.0), "k": torch.tensor(2)}
    (tmp_path / "scratch").mkdir()
    (tmp_path / "in").mkdir()
    for name, content in files(tmp_path, state, dict_class=dict_class).items():
        (tmp_path / "in" / name.replace("__", ".")).write_bytes(content)
    (thing,) = find([tmp_path / "in"], tmp_path / "scratch").things
    (note,) = thing.notes
    assert isinstance(thing.value, SAE)
    rows = torch.randn(2000, D, generator=torch.Generator().manual_seed(1))
    active = float((thing.value.encode(rows) != 0).sum(1).float().mean())
    said = float(note.partition("about ")[2].split()[0])
    assert "its threshold was never set (it is -1)" in note
    assert "not the k = 2 that the file names" in note
    assert said == pytest.approx(active, abs=0.2)
    assert active > 2.2


def test_a_threshold_that_was_set_needs_no_note(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "in").mkdir()
    state = TOPK | {"threshold": torch.tensor(0.5)}
    for name, content in files(tmp_path, state, dict_class="BatchTopKSAE").items():
        (tmp_path / "in" / name.replace("__", ".")).write_bytes(content)
    assert find([tmp_path / "in"], tmp_path / "scratch").things[0].notes == ()


@pytest.mark.parametrize(
    ("state", "trainer", "message"),
    [
        (TOPK, {"dict_class": "CrossCoder"}, "dict_class 'CrossCoder' cannot be run"),
        (TOPK, {"dict_class": ["AutoEncoder"]}, "trainer.dict_class: Input"),
        (TOPK, {"dict_class": "GatedAutoEncoder"}, "no tensor gate_bias"),
        (TOPK, {"dict_size": N + 1}, "config.json says dict_size = 7"),
        (TOPK, {"activation_dim": D + 1}, "config.json says activation_dim = 5"),
        (TOPK, {"k": 3}, "k = 2, but config.json says 3"),
        (TOPK, {"k": "2"}, "trainer.k: Input"),
        (TOPK | {"k": torch.tensor(N + 1)}, {"k": None}, "k = 7 is impossible"),
        (TOPK | {"k": torch.tensor([1, 2])}, {}, "k: Input should be a valid integer"),
        (TOPK | {"W_skip": torch.ones(D, D)}, {}, "'W_skip', which AutoEncoderTopK does not have"),
        (TOPK | {"b_dec": torch.ones(D + 1)}, {}, "b_dec has shape"),
        (TOPK | {"b_dec": torch.full((D,), torch.nan)}, {}, "b_dec contains NaN"),
        (TOPK | {"encoder.weight": torch.ones(N)}, {}, "encoder.weight has 1 axes"),
        (TOPK | {"encoder.weight": torch.ones(N, D, dtype=torch.int64)}, {}, "dense tensor of real"),
        (TOPK | {"encoder.weight": torch.ones(1).expand(10**6, 10**6)}, {}, "repeats its values"),
        (TOPK | {"threshold": torch.ones(2)}, {"dict_class": "BatchTopKSAE"}, "threshold has shape"),
        (TOPK | {"threshold": torch.tensor(torch.inf)}, {"dict_class": "BatchTopKSAE"}, "threshold contains NaN"),
        (TOPK | {"decoder.weight": torch.ones(D, N - 1)}, {}, "W_dec has shape"),
        (drawn(LINEAR | GATED), {"dict_class": "GatedAutoEncoder"}, "'b_dec', which GatedAutoEncoder does not have"),
        ([1], {}, "not a dictionary of tensors"),
        ({"a": 1}, {}, "not a dictionary of tensors"),
        (TOPK["b_dec"], {}, "not a dictionary of tensors"),
    ],
)
def test_odd_parts_are_one_clear_line(tmp_path: Path, state: Any, trainer: dict[str, Any], message: str) -> None:
    refused(tmp_path, message, **files(tmp_path, state, **trainer))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "trainer: Field required"),
        ({"trainer": None}, "trainer: Input"),
        ({"trainer": {}}, "trainer.dict_class: Field required"),
        ([], "config.json: Input"),
        (b"{", "config.json cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"trainer": NaN}', "NaN is not JSON"),
    ],
)
def test_a_config_of_wrong_types_is_one_clear_line(tmp_path: Path, config: Any, message: str) -> None:
    refused(tmp_path, message, **files(tmp_path, TOPK, config=config))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("unpickled"),)


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "more than plain tensors", **files(tmp_path, {"k": Evil()}))
    assert not (tmp_path / "unpickled").exists()


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = files(tmp_path, TOPK)
    refused(tmp_path, "damaged or holds more", **whole | {"ae__pt": whole["ae__pt"][:-500]})


def test_weights_without_their_config_are_of_no_known_layout(tmp_path: Path) -> None:
    refused(tmp_path, "neither sae_state_dict nor", ae__pt=saved(tmp_path, TOPK))
