import torch

from husai_core.activations.extract import chosen, first_seen

TOKENS = torch.tensor([[0, 5, 6, 7], [0, 5, 6, 8], [0, 4, 6, 7], [0, 5, 6, 7]])


def test_of_equal_contexts_the_first_stays() -> None:
    first = first_seen(TOKENS, torch.ones(4, 4, dtype=torch.bool))
    assert first.int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]]


def test_what_gives_no_row_is_no_earlier_context() -> None:
    rows = torch.ones(4, 4, dtype=torch.bool)
    rows[:, 0], rows[0, 2:] = False, False  # padding that equals the text of the last sequence
    assert first_seen(TOKENS, rows).int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert first_seen(TOKENS[:0], rows[:0]).shape == (0, 4)


def test_the_sequences_drawn_suffice_and_each_gives_a_row() -> None:
    tokens = torch.randint(6, (400, 5), generator=torch.Generator().manual_seed(0))
    rows = torch.ones(400, 5, dtype=torch.bool)
    index, kept = chosen(tokens, rows, 90, 3)
    assert int(kept.sum()) == 90
    assert bool(kept.any(1).all())
    assert index.tolist() == sorted(set(index.tolist()))
    contexts = [tuple(tokens[index[i], : place + 1].tolist()) for i, place in kept.nonzero().tolist()]
    assert len(set(contexts)) == 90
    whole, every = chosen(tokens, rows, 10_000, 3)
    assert int(every.sum()) == sum(len(tokens[:, : place + 1].unique(dim=0)) for place in range(5))
    assert set(index.tolist()) <= set(whole.tolist())
    assert not torch.equal(chosen(tokens, rows, 90, 4)[0], index)
