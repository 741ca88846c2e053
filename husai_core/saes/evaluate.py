"""Figures of an SAE on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.saes.bank import Rows
from husai_core.saes.sae import SAE

RESIDENT = 1 << 23
"""Latents of one SAE, or entries of rows, that are held at once."""
OUTLIER_NORM = 10.0
"""Rows of more than this multiple of the median norm are outliers.

A language model's usual rows stay within a few times the median norm. The rows that act as attention sinks have a
hundred times and more (Sun et al. 2024, arXiv 2402.17762), so that a handful of them holds nearly all variance.
"""


@dataclass(frozen=True)
class Figures:
    """Quality of one SAE on the given rows."""

    explained_variance: float
    explained_variance_without_outliers: float
    normalised_mse: float
    l0: float
    dead_fraction: float
    outlier_fraction: float
    """Share of rows that are outliers; see `OUTLIER_NORM`."""

    @property
    def lower_explained_variance(self) -> float:
        """The lower of explained variance over all rows and without outliers, as `Member` has it."""
        return min(self.explained_variance, self.explained_variance_without_outliers)


def explained_variance(target: Tensor, prediction: Tensor) -> float:
    """1 - sum of squared errors / sum of squared deviations from the mean of `target`'s columns; NaN if constant."""
    target, error = target.double(), (target - prediction).double()
    return float(1 - error.square().sum() / (target - target.mean(0)).square().sum())


def evaluate(sae: SAE, rows: Rows, targets: Rows | None = None, batch_size: int = 8192) -> Figures:
    """Figures of one SAE on the CPU; see `evaluate_all`."""
    return evaluate_all([sae], rows, targets, batch_size)[0]


def are_outliers(norms: Tensor, multiple: float = OUTLIER_NORM) -> Tensor:
    """Which rows have more than `multiple` times the median of these norms [n]: bool [n]; none if the median is 0."""
    median = norms.median()
    return (norms > multiple * median) & (median > 0)


@torch.no_grad()
def evaluate_all(
    saes: Sequence[SAE],
    rows: Rows,
    targets: Rows | None = None,
    batch_size: int = 8192,
    device: str = "cpu",
    on_block: Callable[[int, int], None] | None = None,
) -> list[Figures]:
    """Figures of `saes` on `rows` [n, d_in]; transcoders are compared with `targets` [n, d_out].

    All SAEs together read the rows once, at most `batch_size` at a time, on `device`, after the norms of the targets
    have been read, which say what outliers are. `normalised_mse` is the sum of squared errors / the sum of squares of
    the targets, `l0` the mean number of non-zero latents per row, and `dead_fraction` the share of latents that are
    zero on all rows. `on_block` is called whenever an SAE has read a block, with (rows read by all of them together,
    rows to read).
    """
    n, done = rows.shape[0], 0
    spreads = _Spread(device), _Spread(device)
    tallies = [_Tally(sae, device) for sae in saes]
    size = max(1, min(batch_size, RESIDENT // max(max(sae.W_dec.shape) for sae in saes)))
    blocks = [slice(start, start + size) for start in range(0, n, size)]
    compared = rows if targets is None else targets
    outlying = are_outliers(torch.cat([compared[block].to(device).norm(dim=1) for block in blocks]))
    for block in blocks:
        x = rows[block].to(device)
        y = x if targets is None else targets[block].to(device)
        weights = torch.stack([torch.ones_like(outlying[block]), ~outlying[block]]).double()
        for spread, weight in zip(spreads, weights, strict=True):
            spread.add(y, weight)
        for tally in tallies:
            tally.add(x, y, weights)
            done += len(x)
            if on_block:
                on_block(done, n * len(saes))
    return [tally.figures(*spreads) for tally in tallies]


class _Spread:
    """Sums of weighted rows that arrive in blocks: of the weights, and of squares about zero and about the mean.

    All in float64. Blocks are merged as in Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance",
    so a large mean costs no precision.
    """

    def __init__(self, device: str) -> None:
        self.n, self.mean, self.squares, self.deviations = torch.zeros(4, dtype=torch.float64, device=device).unbind()

    def add(self, rows: Tensor, weights: Tensor) -> None:
        """Count a block of rows [m, d] in, each as often as its weight [m] says."""
        rows = rows.double()
        before, m = self.n, weights.sum()
        mean = weights @ rows / m.clamp(min=1)
        step = mean - self.mean
        self.n = self.n + m
        share = m / self.n.clamp(min=1)
        self.squares = self.squares + weights @ rows.square().sum(1)
        within = weights @ (rows - mean).square().sum(1)
        self.deviations = self.deviations + within + step.square().sum() * (before * share)
        self.mean = self.mean + step * share


class _Tally:
    """Squared errors of one SAE so far, over all rows and without outliers, and on how many rows each latent fired."""

    def __init__(self, sae: SAE, device: str) -> None:
        self.sae = sae.to(device)
        self.errors = torch.zeros(2, dtype=torch.float64, device=device)
        self.active = torch.zeros(sae.d_sae, dtype=torch.long, device=device)

    def add(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        """Count a block in; `weights` [2, m] are of all rows and of those that are no outliers."""
        latents = self.sae.encode(x)
        self.errors += weights @ (y - self.sae.decode(latents)).double().square().sum(1)
        self.active += (latents != 0).sum(0)

    def figures(self, every: _Spread, usual: _Spread) -> Figures:
        """The figures, from the spread of all rows and that of the rows that are no outliers."""
        error, usual_error = self.errors
        return Figures(
            explained_variance=float(1 - error / every.deviations),
            explained_variance_without_outliers=float(1 - usual_error / usual.deviations),
            normalised_mse=float(error / every.squares),
            l0=float(self.active.sum() / every.n),
            dead_fraction=float((self.active == 0).double().mean()),
            outlier_fraction=float(1 - usual.n / every.n),
        )
