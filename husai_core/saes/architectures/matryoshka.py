"""Matryoshka SAEs (Bussmann et al. 2025, arXiv 2503.17547); the loss is `losses.matryoshka`."""

from __future__ import annotations

import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients
from husai_core.saes.architectures.batchtopk import BatchTopK


class Matryoshka(BatchTopK):
    """BatchTopK whose prefixes of latents reconstruct as well."""

    def to(self, device: str) -> None:
        """See `StackedSAEs`."""
        super().to(device)
        self.levels = torch.tensor(self.recipe.levels, dtype=torch.int32, device=device)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `StackedSAEs`."""
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
