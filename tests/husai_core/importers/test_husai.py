import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from husai_core.activations import store
from husai_core.activations.rows import StoredRows
from husai_core.activations.store import FACTS, Activations, Writer
from husai_core.models import modular
from tests.husai_core.importers.test_importers import read, refused

D, N = 3, 20
SHARD = "activations__safetensors"
FACTS_OF_ROWS = dict.fromkeys(FACTS) | {"hook_name": "h", "position": "answer", "source": "model", "leaks_label": False}
CFG = modular.config(p=13, n_layers=2, d_model=16, n_heads=2, d_mlp=32, act_fn="relu", normalization_type="LN")
DATASET = {"p": 13, "position": "answer"}


def columns(**other: Tensor | None) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(0)
    stored = {
        "rows": torch.randn(N, D, generator=source),
        "tokens": torch.zeros(N, 0, dtype=torch.int64),
        "label": torch.full((N,), -1),
        "split": torch.arange(N, dtype=torch.uint8) % 3,
    }
    return {name: value for name, value in (stored | other).items() if value is not None}


def activations(tmp_path: Path, facts: dict[str, Any] | None = None, **other: Tensor | None) -> dict[str, bytes]:
    """The files of an artifact whose facts and columns may be changed."""
    save_file(columns(**other), tmp_path / "saved")
    cfg = json.dumps(FACTS_OF_ROWS | (facts or {})).encode()
    return {"cfg__json": cfg, SHARD: (tmp_path / "saved").read_bytes()}


def files(path: Path) -> dict[str, bytes]:
    return {file.name.replace(".", "__"): file.read_bytes() for file in path.iterdir()}


def sharded(path: Path, dtype: torch.dtype = torch.float32) -> Tensor:
    """An artifact of 53 rows in shards of 7; its rows."""
    path.mkdir()
    rows, split = torch.randn(53, D).to(dtype), torch.arange(53, dtype=torch.uint8) % 3
    writer = Writer(path, FACTS_OF_ROWS, dtype, 7 * D * dtype.itemsize)
    writer.add(rows, tokens=torch.zeros(53, 0, dtype=torch.int64), label=torch.full((53,), -1), split=split)
    writer.close()
    return rows.float()


def network(**other: Any) -> dict[str, bytes]:
    """The `cfg.json` of a transformer, changed."""
    return {"cfg__json": json.dumps(CFG | {"dataset": DATASET} | other).encode()}


def weights(tmp_path: Path) -> dict[str, bytes]:
    modular.save(tmp_path, modular.build(CFG, 0), CFG)
    return {"model__safetensors": (tmp_path / "model.safetensors").read_bytes()}


def test_what_the_store_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    kept = {name: value for name, value in columns().items() if name != "rows"}
    source = Activations(StoredRows([columns()["rows"]]), **kept, hook_name="h", position="answer", source="model")
    store.save(tmp_path / "made", replace(source, sequence=torch.arange(N).int(), place=torch.zeros(N).int()))
    stored = read(tmp_path, **files(tmp_path / "made"))
    assert torch.equal(stored.rows[:], source.rows[:])
    assert torch.equal(stored.split, source.split)
    assert torch.equal(stored.sequence, torch.arange(N).int())


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    rows = sharded(tmp_path / "made")
    stored = read(tmp_path, **files(tmp_path / "made"))
    assert len(stored.rows.shards) == 8
    assert torch.equal(stored.rows[:], rows)


@pytest.mark.parametrize("lost", ["activations-00003.safetensors", "activations-00007.safetensors"])
def test_a_lost_shard_is_noticed(tmp_path: Path, lost: str) -> None:
    sharded(tmp_path / "made")
    (tmp_path / "made" / lost).unlink()
    refused(tmp_path, "says n_rows = 53", **files(tmp_path / "made"))


def test_shards_of_two_artifacts_are_not_mixed(tmp_path: Path) -> None:
    for name, dtype in (("made", torch.float32), ("other", torch.float16)):
        sharded(tmp_path / name, dtype)
    shard = "activations-00004.safetensors"
    (tmp_path / "made" / shard).write_bytes((tmp_path / "other" / shard).read_bytes())
    refused(tmp_path, f"{shard} has other columns", **files(tmp_path / "made"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"split": torch.zeros(N - 1, dtype=torch.uint8)}, "split has 19 entries for 20 rows"),
        ({"split": torch.full((N,), 7, dtype=torch.uint8)}, "split has a value 7"),
        ({"split": torch.zeros(N)}, "split is F32"),
        ({"split": None}, "no tensor split"),
        ({"rows": None}, "no tensor rows"),
        ({"rows": torch.ones(N)}, r"rows is F32 \[20\]"),
        ({"rows": torch.ones(N, D, dtype=torch.int32)}, "rows is I32"),
        ({"rows": torch.ones(N, 0)}, "rows are"),
        ({"rows": torch.ones(N, 2**13 + 1)}, "1 to 8192 wide"),
        ({"rows": torch.full((N, D), torch.nan)}, "rows contains NaN"),
        ({"label": torch.ones(N)}, "label is F32"),
        ({"tokens": torch.zeros(N, dtype=torch.int64)}, "tokens is I64"),
        ({"place": torch.zeros(N - 2, dtype=torch.int32)}, "place has 18 entries"),
        ({"other": torch.zeros(N)}, "has a tensor 'other'"),
    ],
)
def test_columns_of_wrong_types_or_lengths_are_one_clear_line(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    refused(tmp_path, message, **activations(tmp_path, **other))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"hook_name": 5}, "hook_name: Input"),
        ({"position": None}, "position: Input"),
        ({"leaks_label": "no"}, "leaks_label: Input"),
        ({"p": "13"}, "p: Input"),
        ({"model_digest": 1}, "model_digest: Input"),
        ({"n_rows": 21}, "says n_rows = 21"),
        ({"d_model": 4}, "says d_model = 4"),
    ],
)
def test_facts_of_wrong_types_are_one_clear_line(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    refused(tmp_path, message, **activations(tmp_path, facts))


def test_damaged_shards_are_one_clear_line(tmp_path: Path) -> None:
    whole = activations(tmp_path)
    refused(tmp_path, "cannot be read", **whole | {SHARD: whole[SHARD][:-9]})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"d_model": "16"}, "d_model: Input"),
        ({"act_fn": "foo"}, "act_fn: Input"),
        ({"dataset": None}, "dataset: Input"),
        ({"dataset": {"p": 13, "position": "bos"}}, "dataset.position: Input"),
        ({"dataset": {"p": 11, "position": "answer"}}, "says dataset.p = 11"),
        ({"leaks_label": 0}, "leaks_label: Input"),
        ({"n_layers": 3}, "do not fit its config: 2 layers, not 3"),
        ({"d_vocab": 10**9}, r"embed.W_E' is \(17, 16\), not \(1000000000, 16\)"),
        ({"normalization_type": None}, r"blocks.0.ln1.b' is \(16,\), not nothing"),
        ({"architecture": "GPTNeoXForCausalLM"}, "names a language model, which is read from config.json"),
    ],
)
def test_a_transformer_that_is_not_its_config_is_one_clear_line(
    tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    refused(tmp_path, message, **network(**other), **weights(tmp_path))
