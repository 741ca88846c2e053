"""How well an SAE reconstructs the activations of a sample, with sums by group of sequences for intervals.

Every figure of reconstruction is taken over all rows and without outliers, whose norm is beyond a multiple of the
median norm: a few attention sinks can hold nearly all variance, and an SAE that has only them looks complete.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from husai_core.saes.evaluate import RESIDENT
from husai_core.saes.sae import SAE
from husai_core.stability.intervals import Statistic

Array = NDArray[np.float64]
Figure = Callable[[Array, int], Array]
"""From weights of groups [r, groups], and the place of the rows that are meant, to r values."""
Worse = Callable[[Array, Array], Array]
ALL, USUAL = 0, 1
"""Places of the sums over all rows and without outliers."""
SUFFIXES = {"_all_rows": ALL, "_without_outliers": USUAL}


def membership(group: Tensor, groups: int) -> Tensor:
    """Which of things in groups [m] belong to each of the `groups`: ones and zeros [groups, m], in float64.

    Products with it sum by group, in an order that is the same every time, also on a GPU.
    """
    return (torch.arange(groups, device=group.device)[:, None] == group).double()


class Spread:
    """Sums of the activations themselves.

    Args:
        groups: number of groups.
        centre: a vector near the mean of the rows [d], so that a large mean costs no precision.
        limit: rows of a larger norm are outliers.
    """

    def __init__(self, groups: int, centre: Tensor, limit: float) -> None:
        self.centre, self.limit = centre.double(), limit
        self.n, self.squares, self.deviations = np.zeros((3, 2, groups))
        self.sums = np.zeros((2, groups, len(centre)))

    def add(self, rows: Tensor, group: Tensor) -> Tensor:
        """Count rows [m, d] of groups [m] in.

        Returns:
            Their weights [2, groups, m] in the sums of each group, over all rows and without outliers.
        """
        norms, centred = rows.norm(dim=1), rows.double() - self.centre
        usual = torch.stack([torch.ones_like(norms), (norms <= self.limit).float()])
        weights = usual[:, None] * membership(group, self.n.shape[1])
        self.n += _numbers(weights.sum(2))
        self.squares += _numbers(weights @ rows.double().square().sum(1))
        self.deviations += _numbers(weights @ centred.square().sum(1))
        self.sums += _numbers(weights @ centred)
        return weights

    def variance(self, w: Array, which: int) -> Array:
        """Sum of squared deviations of the rows from their mean, for weights of their groups [r, groups]: [r]."""
        off_centre: Array = ((w @ self.sums[which]) ** 2).sum(1) / (w @ self.n[which])
        deviations: Array = w @ self.deviations[which] - off_centre
        return deviations


class Reconstruction:
    """Sums of one SAE's errors, and of how often its latents fire; `sae` lies on the device of the rows."""

    def __init__(self, sae: SAE, groups: int) -> None:
        self.sae = sae
        self.errors, self.cosines = np.zeros((2, 2, groups))
        self.fired = np.zeros((groups, sae.d_sae))

    @torch.no_grad()
    def add(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Count rows [m, d] in, with their weights as `Spread.add` returns them; returns what is decoded."""
        decoded = torch.empty_like(rows)
        size = max(1, RESIDENT // self.sae.d_sae)
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            latents = self.sae.encode(rows[block])
            decoded[block] = self.sae.decode(latents)
            self.fired += _numbers(weights[ALL, :, block].float() @ (latents != 0).float())
        cosines = torch.nn.functional.cosine_similarity(rows.double(), decoded.double(), dim=1)
        self.errors += _numbers(weights @ (rows - decoded).double().square().sum(1))
        self.cosines += _numbers(weights @ cosines)
        return decoded

    def figures(self, spread: Spread, unit: str, dense_above: float) -> dict[str, Statistic]:
        """The figures by name; those of reconstruction bare are the worse of all rows and without outliers.

        `dense_fraction` is the share of latents that fire on more than the share `dense_above` of the rows.
        """
        n, fired = spread.n[ALL], self.fired

        def statistic(at: Callable[[Array], Array]) -> Statistic:
            return Statistic(fired.shape[0], at, unit=unit)

        figures = dict[str, Statistic]()
        for name, (figure, worse) in self._reconstruction(spread).items():
            figures[name] = statistic(_worse(figure, worse))
            figures |= {name + suffix: statistic(_of(figure, which)) for suffix, which in SUFFIXES.items()}
        return figures | {
            "l0": statistic(lambda w: (w @ fired).sum(1) / (w @ n)),
            "l0_per_dimension": statistic(lambda w: (w @ fired).sum(1) / (w @ n) / self.sae.d_in),
            "dead_fraction": statistic(lambda w: (w @ fired == 0).mean(1)),
            "dense_fraction": statistic(lambda w: (w @ fired > dense_above * (w @ n)[:, None]).mean(1)),
        }

    def _reconstruction(self, spread: Spread) -> dict[str, tuple[Figure, Worse]]:
        """Figures of rows, and which of two values is the worse."""
        return {
            "explained_variance": (lambda w, which: 1 - w @ self.errors[which] / spread.variance(w, which), np.minimum),
            "normalised_mse": (lambda w, which: w @ self.errors[which] / (w @ spread.squares[which]), np.maximum),
            "cosine_similarity": (lambda w, which: w @ self.cosines[which] / (w @ spread.n[which]), np.minimum),
        }


def _of(figure: Figure, which: int) -> Callable[[Array], Array]:
    """A figure of all rows or without outliers; NaN, without a warning, where it does not exist."""

    def at(w: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return figure(w, which)

    return at


def _worse(figure: Figure, worse: Worse) -> Callable[[Array], Array]:
    """The worse of a figure of all rows and of that without outliers."""
    return lambda w: worse(_of(figure, ALL)(w), _of(figure, USUAL)(w))


def _numbers(tensor: Tensor) -> Array:
    numbers: Array = tensor.double().cpu().numpy()
    return numbers
