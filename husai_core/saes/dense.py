"""Architectures that compute every latent: any number may be active in a row.

Losses, for rows x with target y, pre-activations z, latents f and error e = x̂ - y, all means over the batch:

- ReLU (Bricken et al. 2023): |e|² + l1 · Σ f, with unit decoder rows;
- JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): f = z where z > θ; |e|² + c · (L0 / target_l0 - 1)², where θ
  is trained through rectangles of width `bandwidth` around it;
- Gated (Rajamanoharan et al. 2024, arXiv 2404.16014): latents f = 1[g > 0] · relu(m) with gate g and magnitude m of
  tied weights; |e|² + l1 · Σ relu(g) + |y - decode(relu(g))|², the last with the decoder held constant.

With an L1 penalty the encoder starts short, so that latents start small and biases need not travel far before they
silence them; Conerly et al. 2024 (Transformer Circuits, April) start with short rows for the same end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.codes import Code, DenseCode
from husai_core.saes.group import Gradients, Group


class ReLU(Group):
    """Positive pre-activations, with an L1 penalty."""

    start = 0.1
    """Length of the encoder's rows before the first step."""

    def initial(self) -> tuple[Tensor, Tensor]:
        """See `Group`."""
        encoder, decoder = super().initial()
        return encoder * self.start, decoder

    def pre_activations(self, x: Tensor) -> Tensor:
        """[s, b, n]."""
        return torch.matmul(x, self.encoder.transpose(1, 2)).add_(self.small["b_enc"][:, None])

    def inference(self, x: Tensor) -> Code:
        """See `Group`."""
        return DenseCode(self.pre_activations(x).relu_())

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `Group`."""
        z = self.pre_activations(x)
        f = self.latents(z)
        error = (f @ self.decoder).add_(self.b_dec[:, None]).sub_(y)
        upstream = error * (2 / y.shape[1])
        gradients = Gradients(decoder=[DenseCode(f).outer(f, upstream)])
        gradients.small["b_dec"] += upstream.sum(1)
        to_f = upstream @ self.decoder.transpose(1, 2)
        to_z = self.through(gradients, z, f, to_f, y)
        self.to_pre_activations(gradients, DenseCode(f), to_z, x)
        return gradients, (f > 0).sum(1)

    def latents(self, z: Tensor) -> Tensor:
        """Latents of pre-activations."""
        return z.relu()

    def through(self, gradients: Gradients, z: Tensor, f: Tensor, to_f: Tensor, y: Tensor) -> Tensor:
        """The gradient to z, from that of |e|² to the latents; penalties are added here."""
        return to_f.add_(self.penalty / y.shape[1]).mul_(f > 0)

    @property
    def penalty(self) -> float:
        """The present weight of the latents' sum."""
        assert self.recipe.l1 is not None
        return self.recipe.l1 * self.recipe.sparsity_weight(self.step)

    def export(self, i: int) -> dict[str, Any]:
        """See `Group`."""
        return {"architecture": "relu"}


class JumpReLU(ReLU):
    """Pre-activations above a trained threshold."""

    start = 1.0

    def extras(self) -> dict[str, Tensor]:
        """See `Group`."""
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
        """See `Group`."""
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
        """See `Group`."""
        return {"architecture": "jumprelu", "threshold": self.threshold[i]}


class Gated(ReLU):
    """A gate decides which latents are active, a magnitude with tied weights how strongly."""

    def extras(self) -> dict[str, Tensor]:
        """See `Group`."""
        zeros = torch.zeros(len(self.seeds), self.recipe.d_sae)
        return {"r_mag": zeros.clone(), "b_mag": zeros.clone()}

    def latents(self, z: Tensor) -> Tensor:
        """See `ReLU`; z is the gate's pre-activation, with `b_enc` as its bias."""
        return self._magnitude(z).relu() * (z > 0)

    def _magnitude(self, z: Tensor) -> Tensor:
        small = self.small
        return (z - small["b_enc"][:, None]) * small["r_mag"].exp()[:, None] + small["b_mag"][:, None]

    def inference(self, x: Tensor) -> Code:
        """See `Group`."""
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
        """See `Group`."""
        small = self.small
        return {"architecture": "gated", "r_mag": small["r_mag"][i], "b_mag": small["b_mag"][i]}
