import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from husai_core.models import modular
from tests.husai_core.importers.test_importers import read, refused, saved

CFG = modular.config(p=13, n_layers=2, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type="LN")


def network(config: Any = None, weights: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """An earlier transformer whose config or weights are changed."""
    state = modular.build(CFG, 3).state_dict()
    return {"model_state_dict": state | (weights or {}), "config": CFG if config is None else config}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (CFG | {"d_model": "8"}, "d_model: Input"),
        (CFG | {"d_model": 8.5}, "d_model: Input"),
        (CFG | {"d_vocab": "x"}, "d_vocab: Input"),
        (CFG | {"act_fn": "foo"}, "act_fn: Input"),
        (CFG | {"act_fn": [1]}, "act_fn: Input"),
        (CFG | {"normalization_type": "foo"}, "normalization_type: Input"),
        (CFG | {"d_head": None, "n_heads": "2"}, "n_heads: Input"),
        (CFG | {"d_mlp": None}, "d_mlp: Field required"),
        (CFG | {"n_layers": 10**9}, "n_layers: Input"),
        (CFG | {"n_layers": 3}, "do not fit its config: 2 layers, not 3"),
        (CFG | {"d_vocab": 10**9}, r"embed.W_E' is \(17, 16\), not \(1000000000, 16\)"),
        (CFG | {"n_heads": 4}, "do not fit its config: 'blocks.0.attn.W_K"),
        ({"transformer": [1]}, "config.transformer is not a dictionary"),
    ],
)
def test_a_network_that_is_not_its_config_is_one_clear_line(tmp_path: Path, config: Any, message: str) -> None:
    refused(tmp_path, message, a__pt=saved(tmp_path, network(config)))


def test_a_small_file_cannot_ask_for_a_large_network(tmp_path: Path) -> None:
    long = {"pos_embed.W_pos": torch.zeros(20_000, 16)}
    refused(tmp_path, "too large", a__pt=saved(tmp_path, network(CFG | {"n_ctx": 20_000}, long)))


def test_weights_that_share_their_values_are_refused(tmp_path: Path) -> None:
    blank = torch.zeros(16, 32)
    shared = {f"blocks.{layer}.mlp.W_in": blank for layer in (0, 1)}
    refused(tmp_path, "repeats its values", a__pt=saved(tmp_path, network(weights=shared)))


@pytest.mark.parametrize("name", ["blocks.0.mlp.W_gate", "other"])
def test_a_weight_that_the_network_does_not_have_is_refused(tmp_path: Path, name: str) -> None:
    content = network(weights={name: torch.ones(2)})
    refused(tmp_path, f"{name}' is .*, not nothing", a__pt=saved(tmp_path, content))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"layer": "1"}, "layer: Input"),
        ({"layer": -1}, "layer: Input"),
        ({"position": ["answer"]}, "position: Input"),
        ([1], "Input should be a valid dictionary"),
    ],
)
def test_what_is_said_of_rows_has_the_right_types(tmp_path: Path, meta: Any, message: str) -> None:
    refused(tmp_path, message, a__pt=saved(tmp_path, torch.randn(20, 3)), a__meta__pt=saved(tmp_path, meta))


def test_rows_that_are_too_wide_for_their_moments_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "width of at most 8192", a__pt=saved(tmp_path, torch.ones(10, 8193)))


def test_nested_rows_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        rows = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        refused(tmp_path, "dense tensor", a__pt=saved(tmp_path, rows))


def test_rows_are_read_with_where_they_come_from(tmp_path: Path) -> None:
    meta = {"layer": torch.tensor(1), "position": "answer"}
    stored = read(tmp_path, a__pt=saved(tmp_path, torch.randn(20, 3)), a__meta__pt=saved(tmp_path, meta))
    assert (stored.layer, stored.position) == (1, "answer_token")
