"""Figures of an SAE on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from husai_core.saes.bank import Rows
from husai_core.saes.sae import PARAMETERS, SAE

RESIDENT = 1 << 23
"""Latents of one SAE, or entries of rows, that are held at once."""


@dataclass(frozen=True)
class Figures:
    """Quality of one SAE on the given rows."""

    explained_variance: float
    normalised_mse: float
    l0: float
    dead_fraction: float


def explained_variance(target: Tensor, prediction: Tensor) -> float:
    """1 - sum of squared errors / sum of squared deviations from the mean of `target`'s columns; NaN if constant."""
    target, error = target.double(), (target - prediction).double()
    return float(1 - error.square().sum() / (target - target.mean(0)).square().sum())


def evaluate(sae: SAE, rows: Rows, targets: Rows | None = None, batch_size: int = 8192) -> Figures:
    """Figures of one SAE on the CPU; see `evaluate_all`."""
    return evaluate_all([sae], rows, targets, batch_size)[0]


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

    The rows are read once, at most `batch_size` at a time, and go to `device`. `normalised_mse` is the sum of
    squared errors / the sum of squares of the targets, `l0` the mean number of non-zero latents per row, and
    `dead_fraction` the share of latents that are zero on all rows. `on_block` is called whenever an SAE has read a
    block, with (rows read by all of them together, rows to read).
    """
    n, done, spread = rows.shape[0], 0, _Spread(device)
    tallies = [_Tally(sae, device) for sae in saes]
    size = max(1, min(batch_size, RESIDENT // max(max(sae.W_dec.shape) for sae in saes)))
    for start in range(0, n, size):
        block = slice(start, start + size)
        x = rows[block].to(device)
        y = x if targets is None else targets[block].to(device)
        spread.add(y)
        for tally in tallies:
            tally.add(x, y)
            done += len(x)
            if on_block:
                on_block(done, n * len(saes))
    return [tally.figures(spread) for tally in tallies]


class _Spread:
    """Number of rows that arrive in blocks, and the sums of their squares about zero and about their mean, in float64.

    Blocks are merged as in Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", so a large mean
    costs no precision.
    """

    def __init__(self, device: str) -> None:
        self.n = 0
        self.mean, self.squares, self.deviations = torch.zeros(3, dtype=torch.float64, device=device).unbind()

    def add(self, rows: Tensor) -> None:
        """Count a block of rows [m, d] in."""
        rows = rows.double()
        before, m, mean = self.n, len(rows), rows.mean(0)
        step = mean - self.mean
        self.n += m
        self.squares = self.squares + rows.square().sum()
        within = (rows - mean).square().sum()
        self.deviations = self.deviations + within + step.square().sum() * (before * m / self.n)
        self.mean = self.mean + step * (m / self.n)


class _Tally:
    """Squared errors of one SAE so far, and on how many rows each of its latents was not zero."""

    def __init__(self, sae: SAE, device: str) -> None:
        weights = {name: getattr(sae, name).to(device) for name in PARAMETERS[sae.architecture]}
        self.sae = replace(sae, **weights)
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        self.active = torch.zeros(sae.d_sae, dtype=torch.long, device=device)

    def add(self, x: Tensor, y: Tensor) -> None:
        latents = self.sae.encode(x)
        self.error += (y - self.sae.decode(latents)).double().square().sum()
        self.active += (latents != 0).sum(0)

    def figures(self, spread: _Spread) -> Figures:
        return Figures(
            explained_variance=float(1 - self.error / spread.deviations),
            normalised_mse=float(self.error / spread.squares),
            l0=float(self.active.sum()) / spread.n,
            dead_fraction=float((self.active == 0).double().mean()),
        )
