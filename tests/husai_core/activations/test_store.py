import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from husai_core.activations import store
from husai_core.activations.rank import effective_rank
from husai_core.activations.rows import StoredRows
from husai_core.activations.store import FACTS, Activations, Writer
from husai_core.errors import UserError

FACTS_OF_TEXT = dict.fromkeys(FACTS) | {"hook_name": "blocks.0.hook_mlp_out", "position": "all", "source": "language"}
FACTS_OF_TEXT |= {"leaks_label": False, "model": "a/model", "context": 5}


def example() -> Activations:
    torch.manual_seed(0)
    split = torch.tensor([0, 0, 0, 1, 2, 2], dtype=torch.uint8)
    tokens, label, rows = torch.arange(12).view(6, 2), torch.arange(6), StoredRows([torch.randn(6, 4)])
    return Activations(rows, tokens, label, split, "blocks.0.hook_mlp_out", "answer", "model", "ab", 5)


def text_columns(n: int) -> dict[str, Tensor]:
    place = torch.arange(n, dtype=torch.int32)
    split = (place // 5 % 3).to(torch.uint8)
    columns = {"tokens": place.long()[:, None], "label": torch.full((n,), -1), "split": split}
    return columns | {"sequence": place // 5, "place": place % 5}


def written(directory: Path, rows: Tensor, dtype: torch.dtype = torch.float32, shard_rows: int = 7) -> Activations:
    """Rows that came in blocks of 10, in shards of 7."""
    directory.mkdir(exist_ok=True)
    writer = Writer(directory, FACTS_OF_TEXT, dtype, shard_rows * rows.shape[1] * dtype.itemsize)
    columns = text_columns(len(rows))
    for at in range(0, len(rows), 10):
        writer.add(rows[at : at + 10], **{name: value[at : at + 10] for name, value in columns.items()})
    writer.close()
    return store.load(directory)


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    before = example()
    cfg = store.save(tmp_path, before)
    after = store.load(tmp_path)
    for name in ("tokens", "label", "split"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    assert [getattr(after, name) for name in FACTS] == [getattr(before, name) for name in FACTS]
    assert torch.equal(after.rows[:], before.rows[:])
    assert after.sequence is after.place is None
    assert cfg["rows_by_split"] == {"train": 3, "validation": 1, "test": 2}
    assert cfg["mean_norm"] == pytest.approx(float(before.rows[:].norm(dim=1).mean()), rel=1e-6)


def test_claims_are_kept_and_not_read(tmp_path: Path) -> None:
    cfg = store.save(tmp_path, example(), claimed={"source": "language", "p": 7})
    assert cfg["claimed"] == {"source": "language", "p": 7}
    assert (store.load(tmp_path).source, store.load(tmp_path).p) == ("model", 5)


def test_parts_are_disjoint_and_complete() -> None:
    before_saving = example()
    parts = [before_saving.part(name) for name in ("train", "validation", "test")]
    assert [len(rows_of_part) for rows_of_part in parts] == [3, 1, 2]
    assert torch.equal(torch.cat([rows_of_part[:] for rows_of_part in parts]), before_saving.rows[:])


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store.save(tmp_path / name, example())
    for file in ("activations.safetensors", "cfg.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_shards_hold_every_row_once_and_in_order(tmp_path: Path) -> None:
    rows = torch.randn(53, 3)
    stored = written(tmp_path, rows)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert names == [f"activations-{i:05d}.safetensors" for i in range(8)]
    assert torch.equal(stored.rows[:], rows)
    for name, value in text_columns(53).items():
        assert torch.equal(getattr(stored, name), value), name
    assert stored.model == "a/model"
    assert stored.rows.shape == (53, 3)


def test_any_order_of_indices_reads_those_rows(tmp_path: Path) -> None:
    rows = torch.randn(53, 3)
    stored = written(tmp_path, rows)
    wanted = torch.tensor([52, 0, 7, 7, 6, -1, 30])
    assert torch.equal(stored.rows[wanted], rows[wanted])
    validation = stored.part("validation")
    mine = rows[stored.mask("validation")]
    order = torch.randperm(len(mine))
    assert torch.equal(validation[order], mine[order])
    assert torch.equal(validation[2:9], mine[2:9])
    assert validation[:0].shape == (0, 3)
    with pytest.raises(IndexError):
        stored.rows[torch.tensor([53])]


def test_no_sequence_spans_two_splits(tmp_path: Path) -> None:
    stored = written(tmp_path, torch.randn(50, 3))
    assert stored.sequence is not None
    owners = [
        set(stored.sequence[stored.mask(rows_of_part)].tolist()) for rows_of_part in ("train", "validation", "test")
    ]
    assert not owners[0] & owners[1]
    assert not owners[2] & (owners[0] | owners[1])


def test_moments_do_not_depend_on_blocks(tmp_path: Path) -> None:
    rows = torch.randn(500, 6) @ torch.randn(6, 6) + 100
    stored = written(tmp_path, rows, shard_rows=64)
    assert torch.allclose(stored.moments.mean.float(), rows.mean(0), atol=1e-4)
    assert torch.allclose(stored.moments.variance.float(), rows.var(0, correction=0), rtol=1e-4)
    assert stored.moments.effective_rank == pytest.approx(effective_rank(rows), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_are_read_as_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    rows = torch.randn(20, 3)
    stored = written(tmp_path, rows, dtype)
    assert stored.rows[:].dtype == torch.float32
    assert torch.equal(stored.rows[:], rows.to(dtype).float())


def test_rows_that_overflow_their_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"blocks.0.hook_mlp_out are not finite as float16"):
        written(tmp_path, torch.full((3, 2), 1e5), torch.float16)


def test_a_changed_copy_is_stored_as_changed(tmp_path: Path) -> None:
    before = example()
    store.save(tmp_path, replace(before, rows=StoredRows([before.rows[:] * 2])))
    assert torch.equal(store.load(tmp_path).rows[:], before.rows[:] * 2)


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    """A process may hold far less memory than the rows take."""
    rows = torch.zeros(120_000, 128)
    columns = {name: value for name, value in text_columns(len(rows)).items() if name not in ("sequence", "place")}
    writer = Writer(tmp_path, FACTS_OF_TEXT, torch.float32, 16 * 2**20)
    writer.add(rows, **columns)
    writer.close()
    code = f"""
import resource
from pathlib import Path
import torch
from husai_core.activations import store
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
part = store.load(Path({str(tmp_path)!r})).part("train")
for start in range(0, len(part), 20_000):
    part[torch.arange(start, min(start + 100, len(part)))]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(printed) * 1024 < rows.nbytes / 2
