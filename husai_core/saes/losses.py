"""What each architecture is trained to make small, as functions that autograd differentiates.

Shapes: s members, b rows, n latents, d_in and d_out columns. A loss takes the members' stacked parameters by name, a
batch and the recipe, and returns the loss of each member [s], a mean over the batch, and the latents. Rows and targets
are in normalised units (`Scaler`), pre-activations are z = x @ encoder + b_enc, and e = x̂ - y is the error of the
reconstruction x̂ = f @ decoder + b_dec from latents f. Unit decoder rows are kept by the optimiser.

`selected`, where it is given, are the active latents as the kernels chose them; the loss then costs what those cost.
Without it everything is computed densely. The gradients in `architectures` are these losses', written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.saes.latents import DenseLatents, Latents
from husai_core.saes.recipe import SAERecipe

Parameters = Mapping[str, Tensor]
"""`encoder` [s, n, d_in], `decoder` [s, n, d_out], `b_enc` [s, n], `b_dec` [s, d_out], and what a loss names."""
Loss = Callable[[Parameters, "Batch", SAERecipe, Latents | None], tuple[Tensor, Latents]]


@dataclass(frozen=True)
class Batch:
    """Rows of one step."""

    x: Tensor
    """[s or 1, b, d_in]; one stream serves all members."""
    y: Tensor
    """Targets [s or 1, b, d_out]: x itself for an SAE."""
    dead: Tensor | None = None
    """Latents [s, n] that the auxiliary loss revives; None: that loss is left out."""
    sparsity: float = 1.0
    """Share of the sparsity penalty that counts in this step."""
    k: int | None = None
    """Active latents per row in this step; None: the recipe's k."""


def topk(p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None) -> tuple[Tensor, Latents]:
    """|e|², where f are the k largest entries of each row of relu(z) (Gao et al. 2024, arXiv 2406.04093)."""
    f = selected or DenseLatents(_largest(_pre_activations(p, batch.x), _k(recipe, batch)))
    error = _error(p, f, batch)
    return _mean_square(error) + revival(p, batch, error, recipe), f


def batchtopk(
    p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None
) -> tuple[Tensor, Latents]:
    """|e|², where f are the b · k largest entries of relu(z) (Bussmann et al. 2024, arXiv 2412.06410)."""
    f = selected or _largest_of_batch(p, batch, recipe)
    error = _error(p, f, batch)
    return _mean_square(error) + revival(p, batch, error, recipe), f


def matryoshka(
    p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None
) -> tuple[Tensor, Latents]:
    """The mean over prefixes of the latents of |e|², f as in BatchTopK (Bussmann et al. 2025, arXiv 2503.17547)."""
    f = selected or _largest_of_batch(p, batch, recipe)
    errors = f.decode_prefixes(p["decoder"], recipe.levels) + p["b_dec"][:, None, None] - batch.y[:, :, None]
    return errors.square().sum(-1).mean((1, 2)) + revival(p, batch, errors[:, :, -1], recipe), f


def switch(p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None) -> tuple[Tensor, Latents]:
    """|e|² + balance · E · Σ_i share_i · mean probability_i (Mudide et al. 2024, arXiv 2410.08201).

    A router, softmax((x - b_router) @ router) of `router` [s, E, d_in] and `b_router` [s, d_in], picks the likeliest
    of E equal blocks of latents for each row; f are the k largest entries of relu(z) in that block, times the block's
    probability. share_i is how many of the rows pick block i. `selected` are f before that factor.
    """
    probabilities = torch.softmax((batch.x - p["b_router"][:, None]) @ p["router"].transpose(1, 2), dim=-1)
    probability, expert = probabilities.max(-1)
    picked = torch.nn.functional.one_hot(expert, recipe.experts).to(probabilities.dtype)
    if selected is None:
        other = picked.repeat_interleave(recipe.latents_per_row, -1) == 0
        selected = DenseLatents(
            _largest(_pre_activations(p, batch.x).masked_fill(other, -torch.inf), _k(recipe, batch))
        )
    f = selected.scaled(probability)
    error = _error(p, f, batch)
    balance = recipe.balance * recipe.experts * (picked.mean(1) * probabilities.mean(1)).sum(-1)
    return _mean_square(error) + balance + revival(p, batch, error, recipe), f


def relu(p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None) -> tuple[Tensor, Latents]:
    """|e|² + l1 · Σ f, where f are the positive parts of z (Bricken et al. 2023)."""
    f = DenseLatents(_pre_activations(p, batch.x).relu())
    return _mean_square(_error(p, f, batch)) + _l1(recipe, batch) * f.values.sum(-1).mean(1), f


def jumprelu(p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None) -> tuple[Tensor, Latents]:
    """|e|² + l0_coefficient · (L0 / target_l0 - 1)² with f = z where z > θ (Rajamanoharan et al. 2024, 2407.14435).

    θ = exp(`log_threshold` [s, n]). A step at θ has no derivative, so θ is trained through rectangles of width
    `bandwidth` around it (their section 3): `pass_through` is 0, and has the rectangles as its derivative.
    """
    assert recipe.target_l0 is not None
    z, threshold = _pre_activations(p, batch.x), p["log_threshold"].exp()[:, None]
    rectangle = ((z - threshold).abs() < recipe.bandwidth / 2).to(z.dtype) / recipe.bandwidth
    active, pass_through = (z > threshold).to(z.dtype), (threshold - threshold.detach()) * rectangle.detach()
    f = DenseLatents(z * active - threshold.detach() * pass_through)
    l0 = (active - pass_through).sum(-1).mean(1)
    penalty = recipe.l0_coefficient * batch.sparsity * (l0 / recipe.target_l0 - 1).square()
    return _mean_square(_error(p, f, batch)) + penalty, f


def gated(p: Parameters, batch: Batch, recipe: SAERecipe, selected: Latents | None = None) -> tuple[Tensor, Latents]:
    """|e|² + l1 · Σ relu(z) + |relu(z) @ decoder + b_dec - y|² (Rajamanoharan et al. 2024, arXiv 2404.16014).

    z is the gate; f = relu(m) where z > 0, with the magnitude m = x @ encoder · exp(r_mag) + b_mag of the same encoder
    (`r_mag` and `b_mag` [s, n]). In the last term decoder and b_dec are held constant.
    """
    z = _pre_activations(p, batch.x)
    magnitude = (z - p["b_enc"][:, None]) * p["r_mag"].exp()[:, None] + p["b_mag"][:, None]
    f, gate = DenseLatents(magnitude.relu() * (z > 0)), z.relu()
    gate_error = gate @ p["decoder"].detach() + p["b_dec"].detach()[:, None] - batch.y
    penalty = _l1(recipe, batch) * gate.sum(-1).mean(1)
    return _mean_square(_error(p, f, batch)) + penalty + _mean_square(gate_error), f


LOSSES: dict[str, Loss] = {
    "topk": topk,
    "batchtopk": batchtopk,
    "matryoshka": matryoshka,
    "switch": switch,
    "relu": relu,
    "jumprelu": jumprelu,
    "gated": gated,
}
"""The loss of each architecture of a recipe."""


def revival(p: Parameters, batch: Batch, error: Tensor, recipe: SAERecipe) -> Tensor:
    """The auxiliary loss of Gao et al. 2024 (arXiv 2406.04093, appendix A.2) for each member [s].

    The k_aux largest dead latents of each row reconstruct what the others left over, -e, which is held constant.
    """
    dead = batch.dead
    if dead is None or not recipe.aux_coefficient or not dead.any():
        return error.new_zeros(len(error))
    columns = dead.any(0).nonzero()[:, 0]
    z = batch.x @ p["encoder"][:, columns].transpose(1, 2) + p["b_enc"][:, None, columns]
    z = z.masked_fill(~dead[:, None, columns], -torch.inf)
    f = _largest(z, min(recipe.revived_per_row(batch.x.shape[-1]), len(columns)))
    return recipe.aux_coefficient * _mean_square(f @ p["decoder"][:, columns] + error.detach())


def consistency(decoder: Tensor, reference: Tensor) -> Tensor:
    """How far decoder rows [s, n, d] lie from a fixed dictionary of unit rows [m, d], for each member [s].

    1 less the mean, over latents, of the largest cosine with a row of the reference: 0 where every latent is there.
    """
    cosines = torch.nn.functional.normalize(decoder, dim=-1) @ reference.T
    return 1 - cosines.amax(-1).mean(-1)


def _pre_activations(p: Parameters, x: Tensor) -> Tensor:
    """Pre-activations z [s, b, n]."""
    return x @ p["encoder"].transpose(1, 2) + p["b_enc"][:, None]


def _error(p: Parameters, f: Latents, batch: Batch) -> Tensor:
    """The error e [s, b, d_out] of the reconstruction."""
    return f.decode(p["decoder"]) + p["b_dec"][:, None] - batch.y


def _mean_square(error: Tensor) -> Tensor:
    """The squared norm of rows [s, b, d], averaged over the batch: [s]."""
    return error.square().sum(-1).mean(1)


def _largest(z: Tensor, k: int) -> Tensor:
    """The k largest entries of the last axis, and 0 in place of all others and of negative ones."""
    values, places = z.topk(k, sorted=False)
    return torch.zeros_like(z).scatter(-1, places, values.relu())


def _largest_of_batch(p: Parameters, batch: Batch, recipe: SAERecipe) -> Latents:
    """The b · k largest entries of each member's relu(z)."""
    z = _pre_activations(p, batch.x)
    return DenseLatents(_largest(z.flatten(1), z.shape[1] * _k(recipe, batch)).view_as(z))


def _k(recipe: SAERecipe, batch: Batch) -> int:
    k = batch.k or recipe.k
    assert k is not None
    return k


def _l1(recipe: SAERecipe, batch: Batch) -> float:
    """The weight of the latents' sum in this step."""
    assert recipe.l1 is not None
    return recipe.l1 * batch.sparsity
