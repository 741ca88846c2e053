import pytest
import torch

from husai_core.saes.codes import DenseCode, SparseCode, chosen, largest, top


def dense(code: SparseCode, values: torch.Tensor) -> torch.Tensor:
    full = torch.zeros(*code.indices.shape[:2], code.n)
    return full.scatter_(-1, code.indices, values)


@pytest.mark.parametrize(("n", "k"), [(64, 4), (63, 4), (16, 5), (200, 4)])
def test_top_keeps_the_largest_entries(n: int, k: int) -> None:
    z = torch.randn(3, 50, n)
    values, indices = z.topk(k)
    code = top(z, k)
    kept = code.values if isinstance(code, DenseCode) else dense(code, code.values)
    assert isinstance(code, SparseCode) == (n == 200)
    assert torch.equal(kept, torch.zeros_like(z).scatter_(-1, indices, values.relu()))


def test_sparse_sums_equal_dense_sums() -> None:
    z, dictionary, rows = torch.randn(3, 50, 64), torch.randn(3, 64, 7), torch.randn(3, 50, 7)
    values, indices = largest(z, 4)
    sparse, full = SparseCode(values.relu(), indices, 64), chosen(values, indices, 64)
    weights = torch.randn_like(sparse.values)
    torch.testing.assert_close(sparse.decode(dictionary), full.decode(dictionary))
    torch.testing.assert_close(sparse.outer(weights, rows), full.outer(dense(sparse, weights), rows))
    torch.testing.assert_close(sparse.totals(weights), full.totals(dense(sparse, weights)))
    gradient = sparse.backward(dictionary, rows, 0.3)
    torch.testing.assert_close(dense(sparse, gradient), full.backward(dictionary, rows, 0.3))
