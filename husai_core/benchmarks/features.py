"""A record for every latent of an SAE: when it fires, what it writes, and whether other seeds have it, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from husai_core.benchmarks.splice import Reading
from husai_core.saes.evaluate import RESIDENT
from husai_core.saes.sae import SAE
from husai_core.stability.matching import assign

TILE = 1024
FOUND = 0.7
"""|cosine| from which a latent's twin is the same feature."""


@dataclass(frozen=True)
class Twins:
    """For each latent of one SAE, its partner in another: index int64 [n], -1 for none, and |cosine| [n]."""

    index: Tensor
    cosine: Tensor


def twins(a: Tensor, b: Tensor) -> Twins:
    """One-to-one partners of decoder rows a [n, d] in b [m, d] with the largest sum of |cosines| (see `assign`)."""
    assigned = assign(a, b)
    index, cosine = torch.full((len(a),), -1), torch.zeros(len(a))
    index[assigned.rows], cosine[assigned.rows] = assigned.columns, assigned.similarity.float()
    return Twins(index, cosine)


def nearest(a: Tensor, b: Tensor, k: int, skip_self: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest |cosines| of rows a [n, d] with rows b [m, d] of unit length: values and indices [n, k]."""
    values, indices = list[Tensor](), list[Tensor]()
    for start in range(0, len(a), TILE):
        cosines = (a[start : start + TILE] @ b.T).abs()
        if skip_self:
            cosines[torch.arange(len(cosines)), torch.arange(start, start + len(cosines))] = -1
        top = cosines.topk(min(k, len(b) - skip_self), dim=1)
        values.append(top.values)
        indices.append(top.indices)
    return torch.cat(values), torch.cat(indices)


def null_percentile(cosine: Tensor, d_sae: int, width: int) -> Tensor:
    """How often the best of `d_sae` Gaussian directions in `width` dimensions has a smaller |cosine| than these [n].

    The square of one cosine has a Beta(1/2, (width - 1)/2) distribution.
    """
    below = stats.beta.cdf(cosine.double().numpy() ** 2, 0.5, (width - 1) / 2)
    return torch.from_numpy(below**d_sae)


def found_interval(count: int, n: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) 95 % interval of the chance that another seed finds a latent `count` of n found."""
    interval = stats.binomtest(count, n).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)


class Activity:
    """When the latents of an SAE fire, read in blocks of rows; of the contexts only the strongest are kept.

    `correlated` are siblings with each latent's partner among theirs, on the same device.
    """

    def __init__(self, sae: SAE, siblings: Sequence[tuple[SAE, Tensor]], keep: int) -> None:
        n, device = sae.d_sae, sae.W_dec.device
        self.sae, self.siblings, self.n = sae, siblings, 0
        self.fired, self.total, self.squares = torch.zeros(3, n, dtype=torch.float64, device=device)
        self.top = torch.zeros(n, keep, device=device)
        self.at = torch.full((n, keep), -1, device=device)
        self.others = torch.zeros(len(siblings), 3, n, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Count rows [m, d] in; they are numbered in the order of their coming."""
        size = max(1, RESIDENT // self.sae.d_sae)
        for start in range(0, len(rows), size):
            block = rows[start : start + size]
            latents = self.sae.encode(block)
            self.fired += (latents != 0).sum(0)
            self.total += latents.double().sum(0)
            self.squares += latents.double().square().sum(0)
            self._keep(latents)
            for sums, (sibling, partner) in zip(self.others, self.siblings, strict=True):
                twin = sibling.encode(block)[:, partner.clamp(min=0)] * (partner >= 0)
                sums[0] += twin.double().sum(0)
                sums[1] += twin.double().square().sum(0)
                sums[2] += (twin * latents).double().sum(0)
            self.n += len(block)

    def _keep(self, latents: Tensor) -> None:
        top = latents.T.topk(min(self.top.shape[1], len(latents)), dim=1)
        values, at = torch.cat([self.top, top.values], 1), torch.cat([self.at, top.indices + self.n], 1)
        self.top, chosen = values.topk(self.top.shape[1], dim=1)
        self.at = at.gather(1, chosen)

    def correlations(self) -> Tensor:
        """Pearson correlation of each latent with its twin in each sibling [siblings, n]; NaN where one never fires."""
        mean, means = self.total / self.n, self.others[:, 0] / self.n
        covariance = self.others[:, 2] / self.n - mean * means
        variance, variances = self.squares / self.n - mean**2, self.others[:, 1] / self.n - means**2
        correlations: Tensor = covariance / (variance * variances).sqrt()
        return correlations.cpu()


def read(reading: Reading, activity: Activity, on_block: Callable[[int], None]) -> None:
    """Read all rows; `on_block` hears how many sequences were read."""
    for block in reading.passes():
        activity.add(reading.rows(block))
        on_block(block.stop - block.start)


def logit_effects(decoder: Tensor, unembedding: Tensor, k: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The k tokens that each decoder row [n, d] promotes and suppresses most, through the unembedding [d, d_vocab].

    Effects are on logits about their mean over the vocabulary, past the last LayerNorm, which only scales them.

    Returns:
        Effects and tokens [n, k] promoted, and the same suppressed.
    """
    blocks = list[tuple[Tensor, ...]]()
    for start in range(0, len(decoder), TILE):
        effects = decoder[start : start + TILE] @ unembedding
        effects = effects - effects.mean(1, keepdim=True)
        blocks.append((*effects.topk(k, dim=1), *effects.topk(k, dim=1, largest=False)))
    promoted, tokens, suppressed, others = (torch.cat(column).cpu() for column in zip(*blocks, strict=True))
    return (promoted, tokens), (suppressed, others)
