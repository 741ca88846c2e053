"""Switch SAEs (Mudide et al. 2024, arXiv 2410.08201); the loss is `losses.switch`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients, directions
from husai_core.saes.architectures.topk import TopK
from husai_core.saes.codes import Code, SparseCode
from husai_core.saes.kernels.torch_cpu import tiles
from husai_core.saes.latents import Latents, selected
from husai_core.saes.losses import Parameters


class Switch(TopK):
    """Experts of TopK latents behind a router that stays at inference."""

    def extras(self) -> dict[str, Tensor]:
        """See `StackedSAEs`."""
        router = directions(self.seeds, "router", self.recipe.experts, self.d_in)
        return {"router": router, "b_router": torch.zeros(len(self.seeds), self.d_in)}

    def probabilities(self, x: Tensor) -> Tensor:
        """The router's softmax [s, b, experts]."""
        return torch.softmax((x - self.small["b_router"][:, None]) @ self.small["router"].transpose(1, 2), -1)

    def code(self, x: Tensor) -> SparseCode:
        """See `TopK`."""
        s, b, n, k = len(self.seeds), x.shape[1], self.recipe.d_sae, self.k
        assert k is not None
        self.shares = self.probabilities(x)
        weight, self.expert = self.shares.max(-1)
        values, latents = x.new_empty(s, b, k), torch.empty(s, b, k, dtype=torch.int32, device=x.device)
        for members, rows, z in tiles(x, self.encoder, self.small["b_enc"]):
            blocks = z.view(*z.shape[:2], self.recipe.experts, -1)
            picked = self.expert[members, rows].T[..., None, None].expand(-1, -1, 1, blocks.shape[-1])
            chosen, places = self.kernels.largest(blocks.gather(2, picked)[:, :, 0], k)
            values[members, rows], latents[members, rows] = chosen.transpose(0, 1), places.transpose(0, 1).int()
        first = self.expert * (n // self.recipe.experts) + n * torch.arange(s, device=x.device)[:, None]
        latents += first[..., None].int()
        self.inner = values.relu_().flatten()
        starts = torch.arange(0, values.numel() + 1, k, dtype=torch.int32, device=x.device)
        return SparseCode((values * weight[..., None]).flatten(), latents.flatten(), starts, (s, b, n), self.kernels)

    def selected(self, parameters: Parameters, x: Tensor) -> Latents:
        """See `StackedSAEs`; the probability of a row's expert is not among their factors yet."""
        code = self.code(x)
        return selected(replace(code, values=self.inner), parameters["encoder"], parameters["b_enc"], x)

    def through(self, gradients: Gradients, code: Code, to_f: Tensor, x: Tensor) -> Tensor:
        """See `TopK`; the probability is trained too."""
        s, b, experts = self.shares.shape
        weight = self.shares.gather(-1, self.expert[..., None])
        to_share = torch.zeros_like(self.shares)
        to_share.scatter_(-1, self.expert[..., None], (to_f * self.inner).view(s, b, -1).sum(-1, keepdim=True))
        used = torch.zeros_like(self.shares).scatter_(-1, self.expert[..., None], 1.0).mean(1, keepdim=True)
        to_share += used * (self.recipe.balance * experts / b)
        to_logits = self.shares * (to_share - (to_share * self.shares).sum(-1, keepdim=True))
        router, offset = self.small["router"], self.small["b_router"]
        gradients.small["router"] += to_logits.transpose(1, 2) @ (x - offset[:, None])
        gradients.small["b_router"] -= torch.bmm(to_logits.sum(1, keepdim=True), router)[:, 0]
        return (to_f.view(s, b, -1) * weight).flatten().mul_(self.inner > 0)

    def export(self, i: int) -> dict[str, Any]:
        """See `StackedSAEs`."""
        router = {"W_router": self.small["router"][i].T, "b_router": self.small["b_router"][i]}
        return {"architecture": "switch", "k": self.recipe.k, **router}
