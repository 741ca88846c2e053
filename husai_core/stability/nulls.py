"""What overlap means nothing: dictionaries that have only their shape in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from scipy import stats
from torch import Tensor

from husai_core.estimate import Estimate
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE
from husai_core.seeding import generator
from husai_core.stability.intervals import Independent
from husai_core.stability.matching import exact, pw_mcc
from husai_core.stability.overlap import best_matches

DRAWS = 200
ASSIGNMENT_DRAWS, WIDE_DRAWS = 24, 4


@dataclass(frozen=True)
class Null:
    """Mean of a metric over `draws` simulated pairs, with the standard error of that mean."""

    mean: float
    standard_error: float
    draws: int

    @property
    def independent(self) -> Independent:
        """The null as a term of a difference."""
        return Independent(self.mean, self.standard_error**2, self.draws - 1)

    def estimate(self) -> Estimate:
        """The mean with its 95 % interval over draws."""
        half = float(stats.t.ppf(0.975, self.draws - 1)) * self.standard_error
        method = "mean of simulated pairs, t quantile"
        low, high = self.mean - half, self.mean + half
        return Estimate(value=self.mean, low=low, high=high, n=self.draws, unit="simulated pair", method=method)


@cache
def gaussian(width: int, features: int) -> dict[str, Null]:
    """Chance level of every decoder metric: two dictionaries of `features` Gaussian directions in `width` dimensions.

    It depends on the shape: PWMCC is 0.283 for 512 features in 128 dimensions, 0.152 for 1024 in 512. The draws of a
    shape are the same in every process. The assignment, whose cost is cubic, is solved for the first
    `ASSIGNMENT_DRAWS` pairs only, and for `WIDE_DRAWS` where it is not `exact`, since the mean over so many features
    hardly varies; its standard error tells.
    """
    rng = generator(0, "gaussian-null", width, features)
    values = defaultdict[str, list[float]](list)
    assigned = ASSIGNMENT_DRAWS if exact(features, features) else WIDE_DRAWS
    for draw in range(DRAWS):
        a, b = torch.randn(2, features, width, generator=rng)
        matches = best_matches(a, b)
        values["pwmcc"].append(matches.pwmcc)
        values["mmcs_signed"].append(matches.mmcs_signed)
        values["shared_fraction_0_7"].append(matches.shared_fraction(0.7))
        if draw < assigned:
            values["pw_mcc"].append(pw_mcc(a, b))
    return {metric: _null(torch.tensor(drawn, dtype=torch.float64)) for metric, drawn in values.items()}


def random_saes(recipe: SAERecipe, rows: Tensor, seeds: Sequence[int]) -> list[SAE]:
    """Untrained SAEs: Gaussian unit decoders, encoders tied to them, centred on `rows` [n, d].

    The activations of their latents agree as much as the geometry of the rows makes random directions agree. They are
    as sparse as the recipe says: TopK, or ReLU where it names no number of active latents.
    """
    k = recipe.k or (None if recipe.target_l0 is None else round(recipe.target_l0) or 1)
    return [random_sae(recipe.d_sae, rows.mean(0), seed, k) for seed in seeds]


def random_sae(d_sae: int, centre: Tensor, seed: int, k: int | None) -> SAE:
    """One untrained SAE around `centre` [d]: TopK, or ReLU without a number of active latents."""
    drawn = torch.randn(d_sae, len(centre), generator=generator(seed, "random-sae"))
    decoder = torch.nn.functional.normalize(drawn, dim=1)
    return SAE(
        architecture="relu" if k is None else "topk",
        k=k,
        W_enc=decoder.T,
        b_enc=torch.zeros(d_sae),
        W_dec=decoder,
        b_dec=centre,
    )


def random_sae_of_l0(d_sae: int, rows: Tensor, seed: int, l0: float) -> SAE:
    """One untrained SAE with `l0` active latents per row, on average over `rows` [n, d].

    TopK where that is a whole number; else the latents above one threshold (JumpReLU), which makes it so.
    """
    if l0 == round(l0):
        return random_sae(d_sae, rows.mean(0), seed, k=max(1, round(l0)))
    sae = random_sae(d_sae, rows.mean(0), seed, k=None)
    latents = sae.encode(rows).flatten()
    threshold = latents.topk(max(1, round(l0 * len(rows))), sorted=False).values.min()
    return replace(sae, architecture="jumprelu", threshold=torch.full((d_sae,), float(threshold)))


def shuffled(rows: Tensor, seed: int, use: str) -> Tensor:
    """Rows [n, d] with every dimension permuted on its own: same marginals, no joint structure left.

    `use` names the split, so that equal seeds shuffle different splits differently.
    """
    rng = generator(seed, "shuffled", use)
    return torch.stack([column[torch.randperm(len(rows), generator=rng)] for column in rows.T], dim=1)


def covariance_matched(rows: Tensor, like: Tensor, seed: int, use: str) -> Tensor:
    """Gaussian rows [n, d], as many as `rows`, with the mean and covariance of `like` [m, d]: nothing else is left.

    A dictionary can be stable because the rows have few strong directions; this null has the same ones.
    """
    mean = like.mean(0)
    covariance = torch.cov((like - mean).double().T).reshape(len(mean), len(mean))
    values, vectors = torch.linalg.eigh(covariance)
    normal = torch.randn(len(rows), len(mean), generator=generator(seed, "covariance", use), dtype=torch.float64)
    drawn: Tensor = ((normal * values.clamp(min=0).sqrt()) @ vectors.T).float()
    return drawn + mean


def _null(values: Tensor) -> Null:
    return Null(float(values.mean()), float(values.std() / len(values) ** 0.5), len(values))
