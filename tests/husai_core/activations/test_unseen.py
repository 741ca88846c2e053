"""What an SAE was trained on is found in other windows of the same text, and nothing else is."""

from pathlib import Path

import pytest
import torch

from husai_core.activations import store
from husai_core.activations.unseen import unseen
from husai_core.data.text import windows
from husai_core.errors import UserError

CONTEXT = 32
TEXT = torch.randint(1, 300, (CONTEXT * 40,), generator=torch.Generator().manual_seed(0)).tolist()


def stored(folder: Path, split: torch.Tensor, columns: bool = True) -> store.Activations:
    """Rows of every token of the text, in windows of `CONTEXT` that belong to the splits given."""
    folder.mkdir()
    tokens = torch.tensor(TEXT)
    facts = dict.fromkeys(store.FACTS) | {"hook_name": "h", "position": "all", "source": "language"}
    writer = store.Writer(folder, facts, torch.float32)
    places = {"sequence": torch.arange(len(tokens)) // CONTEXT, "place": torch.arange(len(tokens)) % CONTEXT}
    places = {name: column.int() for name, column in places.items()} if columns else {}
    label, of_row = torch.full((len(tokens),), -1), split.repeat_interleave(CONTEXT)
    writer.add(torch.randn(len(tokens), 4), tokens=tokens[:, None], label=label, split=of_row, **places)
    writer.close()
    return store.load(folder)


def split(trained: slice) -> torch.Tensor:
    """The splits of 40 windows: test, but for some; of these the first is of the validation split."""
    splits = torch.full((40,), 2, dtype=torch.uint8)
    splits[trained] = 0
    splits[trained.start] = 1
    return splits


def test_the_same_windows_are_recognised_split_by_split(tmp_path: Path) -> None:
    rows = stored(tmp_path / "rows", split(slice(10, 25)))
    kept = unseen(windows([TEXT], CONTEXT, None), rows)
    assert kept.nonzero()[:, 0].tolist() == [*range(10), *range(25, 40)]


@pytest.mark.parametrize(("context", "bos"), [(20, None), (48, 0), (32, 0)])
def test_windows_that_are_cut_elsewhere_are_recognised(tmp_path: Path, context: int, bos: int | None) -> None:
    rows = stored(tmp_path / "rows", split(slice(10, 25)))
    sequences = windows([TEXT], context, bos)
    kept = unseen(sequences, rows)
    step = context - (bos is not None)
    first, end = 10 * CONTEXT, 25 * CONTEXT
    shared = [min(end, (i + 1) * step) - max(first, i * step) for i in range(len(sequences))]
    assert not kept[torch.tensor(shared) >= min(24, step)].any()
    assert kept[torch.tensor(shared) <= 0].all()
    assert 0.4 < float(kept.double().mean()) < 0.7


def test_padding_is_no_text(tmp_path: Path) -> None:
    rows = stored(tmp_path / "rows", split(slice(0, 40)))
    other = [299 - token for token in TEXT[:40]]
    assert unseen(windows([other, other[:5]], CONTEXT, 0), rows).all()


def test_rows_without_their_places_are_refused(tmp_path: Path) -> None:
    rows = stored(tmp_path / "rows", split(slice(0, 10)), columns=False)
    with pytest.raises(UserError, match="do not say which sequences"):
        unseen(windows([TEXT], CONTEXT, None), rows)
