"""ReLU SAEs with an L1 penalty (Bricken et al. 2023); the loss is `losses.relu`.

With an L1 penalty the encoder starts short, so that latents start small and biases need not travel far before they
silence them; Conerly et al. 2024 (Transformer Circuits, April) start with short rows for the same end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients, StackedSAEs
from husai_core.saes.codes import Code, DenseCode


class ReLU(StackedSAEs):
    """Positive pre-activations, with an L1 penalty."""

    start = 0.1
    """Length of the encoder's rows before the first step."""
    restart = 0.2

    def initial(self) -> tuple[Tensor, Tensor]:
        """See `StackedSAEs`."""
        encoder, decoder = super().initial()
        return encoder * self.start, decoder

    def pre_activations(self, x: Tensor) -> Tensor:
        """[s, b, n]."""
        return torch.matmul(x, self.encoder.transpose(1, 2)).add_(self.small["b_enc"][:, None])

    def inference(self, x: Tensor) -> Code:
        """See `StackedSAEs`."""
        return DenseCode(self.pre_activations(x).relu_())

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `StackedSAEs`."""
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
        """See `StackedSAEs`."""
        return {"architecture": "relu"}
