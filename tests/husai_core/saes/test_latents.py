"""Latents by the kernels are those by plain operations, and have the same gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from husai_core.saes.codes import SparseCode, top
from husai_core.saes.kernels import Kernels, cpp
from husai_core.saes.kernels.torch_cpu import TorchCPU
from husai_core.saes.kernels.torch_cuda import TorchCUDA
from husai_core.saes.latents import DenseLatents, Latents, SparseLatents, selected

S, B, N, D = 3, 50, 200, 7
KERNELS = [kernels for kernels in (TorchCPU(), TorchCUDA(), cpp.build()) if kernels]
USES: dict[str, Callable[[Latents, Tensor], Tensor]] = {
    "dense": lambda latents, _: latents.dense(),
    "decode": lambda latents, dictionary: latents.decode(dictionary),
    "prefixes": lambda latents, dictionary: latents.decode_prefixes(dictionary, [20, 120, N]),
    "scaled": lambda latents, dictionary: latents.scaled(torch.linspace(0.5, 2, S * B).view(S, B)).decode(dictionary),
}


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda kernels: str(kernels.name.partition("-")[2]))
@pytest.mark.parametrize("shared", [False, True], ids=["separate rows", "shared rows"])
@pytest.mark.parametrize("use", USES)
def test_values_and_gradients(use: str, shared: bool, kernels: Kernels) -> None:
    torch.manual_seed(0)
    x = torch.randn(1 if shared else S, B, D)
    leaves = [torch.randn(S, N, D), torch.randn(S, N), torch.randn(S, N, D)]
    code = top(x, leaves[0], leaves[1], 4, TorchCPU())
    assert isinstance(code, SparseCode)
    # Entries of a row rise by latent, as those of BatchTopK do, which is what parts of rows need.
    order = (torch.div(torch.arange(S * B * 4), 4, rounding_mode="floor") * S * N + code.latents).argsort()
    code = SparseCode(code.values[order], code.latents[order], code.starts, code.shape, kernels)

    def run(by_kernels: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        encoder, bias, dictionary = (leaf.clone().requires_grad_() for leaf in leaves)
        z = x @ encoder.transpose(1, 2) + bias[:, None]
        active = torch.zeros(S, B, N).scatter_(-1, (code.latents % N).long().view(S, B, 4), 1.0)
        plain = DenseLatents(z.relu() * active)
        latents = selected(code, encoder, bias, x) if by_kernels else plain
        assert isinstance(latents, SparseLatents) == by_kernels
        assert torch.equal(latents.fired(), plain.fired())
        out = USES[use](latents, dictionary)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad((weights * out).sum(), [encoder, bias, dictionary], materialize_grads=True)
        return out.detach(), gradients

    (out, gradients), (expected_out, expected) = run(True), run(False)
    torch.testing.assert_close(out, expected_out)
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)
