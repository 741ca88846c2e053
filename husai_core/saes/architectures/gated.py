"""Gated SAEs (Rajamanoharan et al. 2024, arXiv 2404.16014); the loss is `losses.gated`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients
from husai_core.saes.architectures.relu import ReLU
from husai_core.saes.codes import Code, DenseCode


class Gated(ReLU):
    """A gate decides which latents are active, a magnitude with tied weights how strongly."""

    def extras(self) -> dict[str, Tensor]:
        """See `StackedSAEs`."""
        zeros = torch.zeros(len(self.seeds), self.recipe.d_sae)
        return {"r_mag": zeros.clone(), "b_mag": zeros.clone()}

    def latents(self, z: Tensor) -> Tensor:
        """See `ReLU`; z is the gate's pre-activation, with `b_enc` as its bias."""
        return self._magnitude(z).relu() * (z > 0)

    def _magnitude(self, z: Tensor) -> Tensor:
        small = self.small
        return (z - small["b_enc"][:, None]) * small["r_mag"].exp()[:, None] + small["b_mag"][:, None]

    def inference(self, x: Tensor) -> Code:
        """See `StackedSAEs`."""
        return DenseCode(self.latents(self.pre_activations(x)))

    def through(self, gradients: Gradients, z: Tensor, f: Tensor, to_f: Tensor, y: Tensor) -> Tensor:
        """See `ReLU`; what goes by the magnitude does not reach the gate's bias."""
        b, scale = y.shape[1], self.small["r_mag"].exp()
        to_magnitude = to_f * (f > 0)
        gradients.small["b_mag"] += to_magnitude.sum(1)
        gradients.small["r_mag"] += (to_magnitude * (z - self.small["b_enc"][:, None])).sum(1) * scale
        gate = z.relu()
        gate_error = (gate @ self.decoder).add_(self.b_dec[:, None]).sub_(y)
        to_gate = (gate_error * (2 / b)) @ self.decoder.transpose(1, 2)
        to_gate.add_(self.penalty / b).mul_(z > 0)
        by_magnitude = to_magnitude * scale[:, None]
        gradients.small["b_enc"] -= by_magnitude.sum(1)
        return to_gate.add_(by_magnitude)

    def export(self, i: int) -> dict[str, Any]:
        """See `StackedSAEs`."""
        small = self.small
        return {"architecture": "gated", "r_mag": small["r_mag"][i], "b_mag": small["b_mag"][i]}
