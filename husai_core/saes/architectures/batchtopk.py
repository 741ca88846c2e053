"""BatchTopK SAEs (Bussmann et al. 2024, arXiv 2412.06410); the loss is `losses.batchtopk`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.topk import TopK
from husai_core.saes.codes import SparseCode

MEMORY = 0.99
"""How slowly the running mean of a batch's smallest latent forgets; at first it weighs all batches alike."""


class BatchTopK(TopK):
    """The b · k largest latents of a batch; a learned threshold at inference."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.threshold = torch.zeros(len(self.seeds), dtype=torch.float64)

    def to(self, device: str) -> None:
        """See `StackedSAEs`."""
        super().to(device)
        self.threshold = self.threshold.to(device)

    def code(self, x: Tensor) -> SparseCode:
        """See `TopK`."""
        guess = None if self.step == 0 else self.threshold.float()
        assert self.k is not None
        count = x.shape[1] * self.k
        chosen = self.kernels.batch_top(x, self.encoder, self.small["b_enc"], count, guess)
        values, latents, starts, smallest = chosen
        self.threshold += max(1 - MEMORY, 1 / (self.step + 1)) * (smallest - self.threshold)
        shape = (len(self.seeds), x.shape[1], self.recipe.d_sae)
        return SparseCode(values.relu_(), latents, starts, shape, self.kernels)

    def inference(self, x: Tensor) -> SparseCode:
        """See `StackedSAEs`."""
        threshold = self.threshold.float()
        values, latents, starts = self.kernels.above(x, self.encoder, self.small["b_enc"], threshold)
        return SparseCode(values, latents, starts, (len(self.seeds), x.shape[1], self.recipe.d_sae), self.kernels)

    def export(self, i: int) -> dict[str, Any]:
        """See `StackedSAEs`."""
        return {"architecture": "jumprelu", "threshold": torch.full((self.recipe.d_sae,), float(self.threshold[i]))}

    def state(self) -> dict[str, Tensor]:
        """See `StackedSAEs`."""
        return super().state() | {"threshold": self.threshold}
