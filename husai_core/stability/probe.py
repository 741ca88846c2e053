"""A linear probe in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = tuple(10.0**exponent for exponent in range(-8, 3))
LEAST_ROWS = 20
"""Rows below which a class says nothing of how well it is told from others."""


@dataclass(frozen=True)
class Probe:
    """Scores classes by an affine map of features."""

    mean: Tensor
    weights: Tensor
    bias: Tensor

    def right(self, features: Tensor, label: Tensor) -> Tensor:
        """Whether the highest score of each row of `features` [n, d] is that of its label [n]: bool [n]."""
        scores = (features.double() - self.mean) @ self.weights + self.bias
        return scores.argmax(1) == label

    def accuracy(self, features: Tensor, label: Tensor) -> float:
        """Share of rows of `features` [n, d] whose highest score is that of their label [n]."""
        return float(self.right(features, label).double().mean())

    def balanced_accuracy(self, features: Tensor, label: Tensor) -> float:
        """The same share, taken within each class first."""
        return over_classes(self.right(features, label).double(), label)[0]


def over_classes(values: Tensor, label: Tensor) -> tuple[float, float]:
    """The mean over classes of the mean within each of `values` [n] with `label` [n], and its variance over rows.

    A class with less than `LEAST_ROWS` rows is left out, unless all are.
    """
    groups = [values[label == label_of_class] for label_of_class in sorted({*label.tolist()})]
    groups = [group for group in groups if len(group) >= LEAST_ROWS] or groups
    means = torch.stack([group.mean() for group in groups])
    variances = torch.stack([group.var(correction=0) / len(group) for group in groups])
    return float(means.mean()), float(variances.sum()) / len(groups) ** 2


def fit(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
    score: Callable[[Probe, Tensor, Tensor], float] = Probe.accuracy,
) -> Probe:
    """Ridge regression from features [n, d] to the one-hot label [n], in which every class has the same weight.

    Without those weights a class that the split left rare in training, and so common in the held-out rows, would score
    low there, and held-out rows would look harder than other domains do. The penalty, in units of the mean variance of
    the features, is the one with the best validation score; among equals the largest.
    """
    features, target = train[0].double(), torch.nn.functional.one_hot(train[1], classes).double()
    weight = (1 / target.sum(0))[train[1], None]
    weight = weight / weight.sum()
    mean, bias = (weight * features).sum(0), (weight * target).sum(0)
    root = weight.sqrt()
    centred, wanted = root * (features - mean), root * (target - bias)
    wide = len(centred) < centred.shape[1]
    values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    rotated = vectors.T @ (wanted if wide else centred.T @ wanted)
    unit = float(values.sum()) / centred.shape[1]

    def solve(penalty: float) -> Probe:
        solution = vectors @ (rotated / (values.clamp(min=0) + penalty * unit)[:, None])
        return Probe(mean, centred.T @ solution if wide else solution, bias)

    return max((solve(penalty) for penalty in reversed(PENALTIES)), key=lambda probe: score(probe, *validation))
