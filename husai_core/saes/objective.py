"""Training through autograd: the documented losses, with a further term and a fixed dictionary to compare with.

For example, members that are drawn towards an earlier SAE:

    def near(forward: Forward) -> Tensor:
        return 0.1 * losses.consistency(forward.parameters["decoder"], forward.reference)

    train(recipe, rows, seeds, validation=held, objective=Objective("near", near, reference=earlier.decoder))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from husai_core.saes.latents import Latents
from husai_core.saes.losses import Batch, Parameters
from husai_core.saes.recipe import SAERecipe


@dataclass(frozen=True)
class Forward:
    """What a further term may look at: all members of one recipe in one step, before the parameters change."""

    parameters: Parameters
    """Stacked, by name, differentiable; see `losses`."""
    latents: Latents
    """The members' latents on this batch, differentiable."""
    batch: Batch
    """Rows and targets in normalised units."""
    loss: Tensor
    """The documented loss of each member [s]."""
    recipe: SAERecipe
    step: int
    """Steps done before this one."""
    reference: Tensor | None
    """The fixed dictionary, unit rows [m, d_out]; directions are the same in normalised and in raw units."""


@dataclass(frozen=True)
class Objective:
    """The documented loss of each architecture plus a term, differentiated by autograd.

    Slower than the gradients in `architectures`, which are used where no objective is given. Optimiser, decoder norms
    and the choice of active latents are the same.
    """

    name: str = "documented"
    """What checkpoints and refusals call it."""
    term: Callable[[Forward], Tensor] | None = None
    """Added to the loss: one value per member [s], or one for all of them."""
    reference: Tensor | None = None
    """Rows [m, d_out] of a dictionary that is not trained; their lengths do not matter."""

    def prepared(self, d_out: int, device: str) -> Objective:
        """The same with a reference of unit rows on a device.

        Raises:
            ValueError: the reference is no [m, d_out], or a row of it is zero or not finite.
        """
        if self.reference is None:
            return self
        if self.reference.ndim != 2 or self.reference.shape[1] != d_out:
            shape = tuple(self.reference.shape)
            raise ValueError(f"the reference dictionary has shape {shape}, but rows of width {d_out} are needed")
        norms = torch.linalg.vector_norm(self.reference.detach().float(), dim=1, keepdim=True)
        if not bool((torch.isfinite(norms) & (norms > 0)).all()):
            raise ValueError("a row of the reference dictionary is zero or not finite")
        return replace(self, reference=(self.reference.detach().float() / norms).to(device))

    def total(self, forward: Forward) -> Tensor:
        """What is differentiated: the sum over members.

        Raises:
            ValueError: the term is neither one value per member nor one for all, or has no gradient.
        """
        if self.term is None:
            return forward.loss.sum()
        term = self.term(forward)
        if not isinstance(term, Tensor) or not term.requires_grad:
            raise ValueError(f"the term of {self.name} has no gradient, so it would change nothing")
        if term.shape not in ((), forward.loss.shape):
            members = len(forward.loss)
            raise ValueError(f"the term of {self.name} has shape {tuple(term.shape)}, not () or ({members},)")
        return forward.loss.sum() + term.sum()
