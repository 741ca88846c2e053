"""The kernels in torch, for CUDA: the host never waits for a result, and nothing is computed in pieces."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from husai_core.saes.kernels import BETAS, EPSILON
from husai_core.saes.kernels.torch_cpu import TorchCPU, starts_of


class TorchCUDA(TorchCPU):
    """See `Kernels`; `above` alone, which no training step calls, waits."""

    name = "torch-cuda"
    block = 1 << 62

    def batch_top(
        self, x: Tensor, encoder: Tensor, bias: Tensor, count: int, guess: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Kernels`; a member's pre-activations are held at once, and always `count` of them are kept."""
        (s, n, _), b = encoder.shape, x.shape[1]
        values, places = x.new_empty(s, count), torch.empty(s, count, dtype=torch.long, device=x.device)
        for i in range(s):
            z = torch.addmm(bias[i], x[i if len(x) > 1 else 0], encoder[i].T).flatten()
            places[i] = z.topk(count, sorted=False).indices.sort().values
            values[i] = z[places[i]]
        members = torch.arange(s, device=x.device)[:, None]
        latents = (places % n + members * n).int().flatten()
        starts = starts_of((places // n + members * b).flatten(), s * b)
        smallest = values.masked_fill(values <= 0, torch.inf).amin(1).double()
        return values.flatten(), latents, starts, smallest.masked_fill_(smallest == torch.inf, 0.0)

    def transpose(self, latents: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """See `Kernels`."""
        ordered = latents.sort(stable=True)
        return ordered.indices.int(), starts_of(ordered.values, n)

    def outer(self, weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
        """See `Kernels`; `starts` spans all entries."""
        return embedding_bag(source, rows, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)

    def adam(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: float, step: int, unit: bool
    ) -> None:
        """See `Kernels`."""
        first, second = moments
        if unit:
            gradient.addcmul_(torch.linalg.vecdot(gradient, weights)[:, None], weights, value=-1)
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (second / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
        weights.addcdiv_(first, scale, value=-lr / (1 - BETAS[0] ** step))
        if unit:
            weights.div_(torch.linalg.vector_norm(weights, dim=-1, keepdim=True))
