"""JumpReLU SAEs (Rajamanoharan et al. 2024, arXiv 2407.14435); the loss is `losses.jumprelu`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients
from husai_core.saes.architectures.relu import ReLU
from husai_core.saes.codes import Code, DenseCode


class JumpReLU(ReLU):
    """Pre-activations above a trained threshold."""

    start = 1.0

    def extras(self) -> dict[str, Tensor]:
        """See `StackedSAEs`."""
        return {"log_threshold": torch.zeros(len(self.seeds), self.recipe.d_sae)}

    @property
    def threshold(self) -> Tensor:
        """[s, n]."""
        return self.small["log_threshold"].exp()

    def prepare(self, x: Tensor) -> None:
        """Start at the thresholds that give every latent an equal share of the target L0 on the first rows."""
        assert self.recipe.target_l0 is not None
        z = self.pre_activations(x)
        count = max(1, round(z.shape[1] * self.recipe.target_l0 / self.recipe.d_sae))
        start = z.topk(min(count, z.shape[1]), dim=1).values[:, -1].clamp(min=self.recipe.bandwidth)
        self.small["log_threshold"].copy_(start.log())

    def latents(self, z: Tensor) -> Tensor:
        """See `ReLU`."""
        return z * (z > self.threshold[:, None])

    def inference(self, x: Tensor) -> Code:
        """See `StackedSAEs`."""
        return DenseCode(self.latents(self.pre_activations(x)))

    def through(self, gradients: Gradients, z: Tensor, f: Tensor, to_f: Tensor, y: Tensor) -> Tensor:
        """See `ReLU`."""
        b, width, threshold = y.shape[1], self.recipe.bandwidth, self.threshold
        near = ((z - threshold[:, None]).abs() < width / 2).float()
        to_threshold = -(threshold * (to_f * near).sum(1) + self._to_l0(f)[:, None] / b * near.sum(1)) / width
        gradients.small["log_threshold"] += to_threshold * threshold
        return to_f.mul_(f > 0)

    def _to_l0(self, f: Tensor) -> Tensor:
        """The derivative of the penalty by each member's L0 [s]."""
        assert self.recipe.target_l0 is not None
        l0 = (f > 0).sum((1, 2)) / f.shape[1]
        weight = self.recipe.l0_coefficient * self.recipe.sparsity_weight(self.step)
        return 2 * weight * (l0 / self.recipe.target_l0 - 1) / self.recipe.target_l0

    def export(self, i: int) -> dict[str, Any]:
        """See `StackedSAEs`."""
        return {"architecture": "jumprelu", "threshold": self.threshold[i]}
