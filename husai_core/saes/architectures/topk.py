"""TopK SAEs (Gao et al. 2024, arXiv 2406.04093); the loss is `losses.topk`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from husai_core.saes.architectures.base import Gradients, StackedSAEs
from husai_core.saes.codes import Code, top
from husai_core.saes.latents import Latents, selected
from husai_core.saes.losses import Parameters


class TopK(StackedSAEs):
    """The k largest latents of each row."""

    revives = True

    def code(self, x: Tensor) -> Code:
        """Latents of a training batch."""
        assert self.k is not None
        return top(x, self.encoder, self.small["b_enc"], self.k, self.kernels)

    def inference(self, x: Tensor) -> Code:
        """See `StackedSAEs`."""
        return self.code(x)

    def selected(self, parameters: Parameters, x: Tensor) -> Latents:
        """See `StackedSAEs`."""
        return selected(self.code(x), parameters["encoder"], parameters["b_enc"], x)

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Gradients, Tensor]:
        """See `StackedSAEs`."""
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
        """See `StackedSAEs`."""
        return {"architecture": "topk", "k": self.recipe.k}
