import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.husai_core.importers.test_importers import read, refused

D, N = 4, 8
CFG: dict[str, Any] = {"d_in": D, "expansion_factor": 2, "num_latents": 0, "k": 3, "activation": "topk"}


def files(tmp_path: Path, cfg: Any, **other: Tensor) -> dict[str, bytes]:
    state = {"W_dec": torch.ones(N, D), "b_dec": torch.zeros(D)}
    state |= {"encoder.weight": torch.eye(N)[:, :D].contiguous(), "encoder.bias": torch.zeros(N)}
    save_file(state | {name.replace("__", "."): value for name, value in other.items()}, tmp_path / "saved")
    text = cfg if isinstance(cfg, bytes) else json.dumps(cfg).encode()
    return {"cfg__json": text, "sae__safetensors": (tmp_path / "saved").read_bytes()}


@pytest.mark.parametrize("transcode", [False, True])
def test_only_an_sae_subtracts_its_bias_first(tmp_path: Path, transcode: bool) -> None:
    sae = read(tmp_path, **files(tmp_path, CFG | {"transcode": transcode}, b_dec=torch.ones(D)))
    assert (sae.k, sae.transcoder, sae.apply_b_dec_to_input) == (3, transcode, not transcode)
    assert sae.encode(torch.full((1, D), 3.0)).max() == (3 if transcode else 2)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (CFG | {"skip_connection": True}, "has a skip connection"),
        (CFG | {"embed_skip": True}, "skip connection from the embedding"),
        (CFG | {"gram_lookup": True}, "table of means"),
        (CFG | {"signed": True}, "by absolute value"),
        (CFG | {"activation": "groupmax"}, "activation: Input should be 'topk'"),
        (CFG | {"k": 0}, "k: Input"),
        (CFG | {"k": 9}, "k = 9 is impossible with 8 latents"),
        (CFG | {"k": True}, "k: Input"),
        (CFG | {"d_in": 5}, r"cfg.json asks for \(10, 5\)"),
        (CFG | {"num_latents": 7}, r"cfg.json asks for \(7, 4\)"),
        (CFG | {"transcode": "no"}, "transcode: Input"),
        ({"k": 3}, "d_in: Field required"),
        ([], "cfg.json: Input"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"d_in": Infinity}', "Infinity is not JSON"),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(tmp_path: Path, cfg: Any, message: str) -> None:
    refused(tmp_path, message, **files(tmp_path, cfg))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"W_skip": torch.ones(D, D)}, "sae.safetensors holds .*W_skip"),
        ({"W_dec": torch.ones(N)}, "W_dec has 1 axes"),
        ({"W_dec": torch.ones(N, D + 1)}, "W_enc asks for|b_dec has shape"),
        ({"b_dec": torch.full((D,), torch.inf)}, "b_dec contains NaN"),
        ({"encoder__bias": torch.ones(N, dtype=torch.int32)}, "encoder.bias is empty or not of real"),
        ({"encoder__bias": torch.ones(0)}, "encoder.bias is empty or not of real"),
    ],
)
def test_odd_tensors_are_one_clear_line(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    refused(tmp_path, message, **files(tmp_path, CFG, **tensors))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = files(tmp_path, CFG)
    refused(tmp_path, "sae.safetensors cannot be read", **whole | {"sae__safetensors": whole["sae__safetensors"][:-8]})


def test_a_checkpoint_without_its_decoder_is_refused(tmp_path: Path) -> None:
    save_file({"encoder.weight": torch.ones(N, D), "encoder.bias": torch.zeros(N)}, tmp_path / "saved")
    content = {"cfg__json": json.dumps(CFG).encode(), "sae__safetensors": (tmp_path / "saved").read_bytes()}
    refused(tmp_path, "expected are encoder.weight", **content)
