import pytest
import torch

from husai_core.saes.codes import DenseCode, SparseCode, top


def dense(code: SparseCode, values: torch.Tensor) -> torch.Tensor:
    full = torch.zeros(*code.indices.shape[:2], code.n)
    return full.scatter_(-1, code.indices, values)


@pytest.mark.parametrize(("n", "k"), [(64, 4), (63, 4), (16, 5)])
def test_top_keeps_the_largest_entries(n: int, k: int) -> None:
    z = torch.randn(3, 50, n)
    values, indices = z.topk(k)
    code = top(z, k)
    assert torch.equal(dense(code, code.values), torch.zeros_like(z).scatter_(-1, indices, values.relu()))


def test_sparse_sums_equal_dense_sums() -> None:
    z, dictionary, rows = torch.randn(3, 50, 64), torch.randn(3, 64, 7), torch.randn(3, 50, 7)
    sparse = top(z, 4)
    full = DenseCode(dense(sparse, sparse.values))
    weights = torch.randn_like(sparse.values)
    torch.testing.assert_close(sparse.decode(dictionary), full.decode(dictionary))
    torch.testing.assert_close(sparse.outer(weights, rows), full.outer(dense(sparse, weights), rows))
    torch.testing.assert_close(sparse.totals(weights), full.totals(dense(sparse, weights)))
    gradient = sparse.backward(dictionary, rows, 0.3)
    torch.testing.assert_close(dense(sparse, gradient), full.backward(dictionary, rows, 0.3))
