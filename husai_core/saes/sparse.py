"""Architectures whose latents are chosen: few are active in a row, and only those cost anything.

Losses, for rows x with target y, latents f, reconstruction x̂ and error e = x̂ - y, all means over the batch:

- TopK (Gao et al. 2024, arXiv 2406.04093): |e|²; the k largest pre-activations of a row, negative ones as 0;
- BatchTopK (Bussmann et al. 2024, arXiv 2412.06410): |e|²; the b · k largest of a batch of b rows;
- Matryoshka (Bussmann et al. 2025, arXiv 2503.17547): as BatchTopK, the mean over prefixes of the latents of |e|²;
- Switch (Mudide et al. 2024, arXiv 2410.08201): a router's softmax picks one block of latents for a row; its TopK
  latents count as often as the block's probability says. |e|² + balance · E · Σ_i share_i · mean probability_i.

Dead latents are revived in all of them (`Group.revive`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.codes import Code, SparseCode, top
from husai_core.saes.group import Gradients, Group, directions
from husai_core.saes.kernels.plain import tiles

MEMORY = 0.99
"""How slowly the running mean of a batch's smallest latent forgets; at first it weighs all batches alike."""


class TopK(Group):
    """The k largest latents of each row."""

    def code(self, x: Tensor) -> Code:
        """Latents of a training batch."""
        assert self.recipe.k is not None
        return top(x, self.encoder, self.small["b_enc"], self.recipe.k, self.kernels)

    def inference(self, x: Tensor) -> Code:
        """See `Group`."""
        return self.code(x)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `Group`."""
        gradients = Gradients()
        code = self.code(x)
        error = code.decode(self.decoder).add_(self.b_dec[:, None]).sub_(y)
        upstream = error * (2 / y.shape[1])
        gradients.small["b_dec"] += upstream.sum(1)
        self.to_dictionaries(gradients, code, code, upstream, x)
        self.revive(gradients, x, error)
        return gradients, code.totals((code.values > 0).float())

    def to_dictionaries(self, gradients: Gradients, code: Code, parts: Code, upstream: Tensor, x: Tensor) -> None:
        """Add what a gradient to the decoded rows of `parts` brings; `code` is the same in undivided rows."""
        to_f = parts.dots(self.decoder, upstream)
        gradients.decoder.append(parts.outer(code.values, upstream))
        self.to_pre_activations(gradients, code, self.through(gradients, code, to_f, x), x)

    def through(self, gradients: Gradients, code: Code, to_f: Tensor, x: Tensor) -> Tensor:
        """The gradient to the pre-activations, from that to the latents."""
        return to_f.mul_(code.values > 0)

    def export(self, i: int) -> dict[str, Any]:
        """See `Group`."""
        return {"architecture": "topk", "k": self.recipe.k}


class BatchTopK(TopK):
    """The b · k largest latents of a batch; a learned threshold at inference."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.threshold = torch.zeros(len(self.seeds), dtype=torch.float64)

    def to(self, device: str) -> None:
        """See `Group`."""
        super().to(device)
        self.threshold = self.threshold.to(device)

    def code(self, x: Tensor) -> SparseCode:
        """See `TopK`."""
        guess = None if self.step == 0 else self.threshold.float()
        count = x.shape[1] * self._k
        found = self.kernels.batch_top(x, self.encoder, self.small["b_enc"], count, guess)
        values, latents, starts, smallest = found
        self.threshold += max(1 - MEMORY, 1 / (self.step + 1)) * (smallest - self.threshold)
        shape = (len(self.seeds), x.shape[1], self.recipe.d_sae)
        return SparseCode(values.relu_(), latents, starts, shape, self.kernels)

    @property
    def _k(self) -> int:
        assert self.recipe.k is not None
        return self.recipe.k

    def inference(self, x: Tensor) -> SparseCode:
        """See `Group`."""
        threshold = self.threshold.float()
        values, latents, starts = self.kernels.above(x, self.encoder, self.small["b_enc"], threshold)
        return SparseCode(values, latents, starts, (len(self.seeds), x.shape[1], self.recipe.d_sae), self.kernels)

    def export(self, i: int) -> dict[str, Any]:
        """See `Group`."""
        return {"architecture": "jumprelu", "threshold": torch.full((self.recipe.d_sae,), float(self.threshold[i]))}

    def state(self) -> dict[str, Tensor]:
        """See `Group`."""
        return super().state() | {"threshold": self.threshold}


class Matryoshka(BatchTopK):
    """BatchTopK whose prefixes of latents reconstruct as well."""

    def to(self, device: str) -> None:
        """See `Group`."""
        super().to(device)
        self.levels = torch.tensor(self.recipe.levels, dtype=torch.int32, device=device)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `Group`."""
        gradients, levels = Gradients(), self.levels
        code = self.code(x)
        parts = code.divided(levels)
        s, b, d = len(self.seeds), y.shape[1], self.d_out
        errors = parts.decode(self.decoder).view(s, b, len(levels), d).cumsum_(2)
        errors.add_(self.b_dec[:, None, None]).sub_(y[:, :, None])
        error = errors[:, :, -1].clone()
        upstream = errors.flip(2).cumsum_(2).flip(2).mul_(2 / b / len(levels))
        gradients.small["b_dec"] += upstream[:, :, 0].sum(1)
        self.to_dictionaries(gradients, code, parts, upstream.flatten(1, 2), x)
        self.revive(gradients, x, error)
        return gradients, code.totals((code.values > 0).float())


class Switch(TopK):
    """Experts of TopK latents behind a router that stays at inference."""

    def extras(self) -> dict[str, Tensor]:
        """See `Group`."""
        router = directions(self.seeds, "router", self.recipe.experts, self.d_in)
        return {"router": router, "b_router": torch.zeros(len(self.seeds), self.d_in)}

    def probabilities(self, x: Tensor) -> Tensor:
        """The router's softmax [s, b, experts]."""
        return torch.softmax((x - self.small["b_router"][:, None]) @ self.small["router"].transpose(1, 2), -1)

    def code(self, x: Tensor) -> SparseCode:
        """See `TopK`."""
        s, b, n, k = len(self.seeds), x.shape[1], self.recipe.d_sae, self.recipe.k
        assert k is not None
        self.shares = self.probabilities(x)
        weight, self.expert = self.shares.max(-1)
        values, latents = x.new_empty(s, b, k), torch.empty(s, b, k, dtype=torch.int32, device=x.device)
        for members, rows, z in tiles(x, self.encoder, self.small["b_enc"]):
            blocks = z.view(*z.shape[:2], self.recipe.experts, -1)
            chosen = self.expert[members, rows].T[..., None, None].expand(-1, -1, 1, blocks.shape[-1])
            found, places = self.kernels.largest(blocks.gather(2, chosen)[:, :, 0], k)
            values[members, rows], latents[members, rows] = found.transpose(0, 1), places.transpose(0, 1).int()
        first = self.expert * (n // self.recipe.experts) + n * torch.arange(s, device=x.device)[:, None]
        latents += first[..., None].int()
        self.inner = values.relu_().flatten()
        starts = torch.arange(0, values.numel() + 1, k, dtype=torch.int32, device=x.device)
        return SparseCode((values * weight[..., None]).flatten(), latents.flatten(), starts, (s, b, n), self.kernels)

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
        """See `Group`."""
        router = {"W_router": self.small["router"][i].T, "b_router": self.small["b_router"][i]}
        return {"architecture": "switch", "k": self.recipe.k, **router}
