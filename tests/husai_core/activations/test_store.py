from pathlib import Path

import torch

from husai_core.activations import store
from husai_core.activations.store import Activations


def example() -> Activations:
    torch.manual_seed(0)
    split = torch.tensor([0, 0, 0, 1, 2, 2], dtype=torch.uint8)
    tokens, label = torch.arange(12).view(6, 2), torch.arange(6)
    return Activations(torch.randn(6, 4), tokens, label, split, "blocks.0.hook_mlp_out", "answer", "model", "ab", 5)


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    before = example()
    store.save(tmp_path, before)
    after = store.load(tmp_path)
    assert after.cfg == before.cfg
    for name in ("rows", "tokens", "label", "split", "mean", "variance"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name


def test_parts_are_disjoint_and_complete() -> None:
    made = example()
    parts = [made.part(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [3, 1, 2]
    assert torch.equal(torch.cat(parts), made.rows)


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.save(tmp_path / name, example())
    for file in ("activations.safetensors", "cfg.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
