import pytest
import torch
from torch import Tensor

from husai_core.saes.codes import DenseCode, Outer, SparseCode, recall, top
from husai_core.saes.kernels.torch_cpu import TorchCPU, largest

S, B, N, D = 3, 50, 200, 7


def materialised(outer: Outer) -> Tensor:
    """All sums, computed in blocks that cross members."""
    cuts = [slice(first, min(first + 90, S * N)) for first in range(0, S * N, 90)]
    return torch.cat([outer.block(cut) for cut in cuts])


def dense(code: SparseCode, weights: Tensor) -> Tensor:
    """Weights of a sparse code among zeros."""
    full = torch.zeros(S * B, S * N)
    full[code.row_of.long(), code.latents.long()] = weights
    return torch.stack([full[i * B : (i + 1) * B, i * N : (i + 1) * N] for i in range(S)])


@pytest.mark.parametrize(("n", "k"), [(64, 4), (63, 4), (16, 5), (200, 4), (4096, 8)])
def test_largest_are_the_largest(n: int, k: int) -> None:
    z = torch.randn(3, 50, n)
    values, places = largest(z, k)
    assert torch.equal(values.sort(descending=True).values, z.topk(k).values)
    assert torch.equal(z.gather(-1, places), values)


class Careless(TorchCPU):
    """Gives the second largest latent in place of the largest."""

    def top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        z = torch.matmul(x, encoder.transpose(1, 2)).add_(bias[:, None])
        values, places = z.topk(k + 1)
        offsets = torch.arange(0, encoder.shape[0] * encoder.shape[1], encoder.shape[1])[:, None, None]
        return values[..., 1:], (places[..., 1:] + offsets).int()


def test_recall_counts_what_a_selection_missed() -> None:
    torch.manual_seed(0)
    x, encoder, bias = torch.randn(1, B, D), torch.randn(S, N, D), torch.randn(S, N)
    assert recall(x, encoder, bias, 4, TorchCPU()) == 1.0
    assert recall(x, encoder, bias, 4, Careless()) == 0.75


@pytest.mark.parametrize("shared", [False, True])
def test_sparse_sums_equal_dense_sums(shared: bool) -> None:
    x, encoder, bias = torch.randn(1 if shared else S, B, D), torch.randn(S, N, D), torch.randn(S, N)
    code = top(x, encoder, bias, 4, TorchCPU())
    assert isinstance(code, SparseCode)
    z = x @ encoder.transpose(1, 2) + bias[:, None]
    full = DenseCode(torch.where(z >= z.topk(4).values[..., -1:], z, 0.0).relu())
    torch.testing.assert_close(dense(code, code.values), full.values)
    weights, rows = torch.randn_like(code.values), torch.randn(S, B, D)
    torch.testing.assert_close(code.decode(encoder), full.decode(encoder))
    inner = full.dots(encoder, rows) * (full.values != 0)
    torch.testing.assert_close(dense(code, code.dots(encoder, rows) * (code.values > 0)), inner)
    torch.testing.assert_close(code.totals(weights), full.totals(dense(code, weights)))
    wanted = materialised(full.outer(dense(code, weights), rows))
    torch.testing.assert_close(materialised(code.outer(weights, rows)), wanted)


def test_parts_of_rows_add_up_to_rows() -> None:
    encoder = torch.randn(S, N, D)
    code = top(torch.randn(S, B, D), encoder, torch.zeros(S, N), 4, TorchCPU())
    assert isinstance(code, SparseCode)
    order = (code.row_of.long() * S * N + code.latents).argsort()
    ordered = SparseCode(code.values[order], code.latents[order], code.starts, code.shape, code.kernels)
    parts = ordered.divided(torch.tensor([20, 120, N], dtype=torch.int32)).decode(encoder)
    torch.testing.assert_close(parts.view(S, B, 3, D).sum(2), code.decode(encoder))
