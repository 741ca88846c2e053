"""What a language model, or a network for addition, loses when SAEs stand in for its activations at one hook.

The figures are those of SAEBench's core (Karvonen et al. 2025, arXiv 2503.09532) with their controls:

- loss recovered: (CE ablated - CE with the SAE) / (CE ablated - CE), where CE is the cross-entropy;
- KL recovered: 1 - KL(model, with the SAE) / KL(model, ablated), over the same predictions.

Ablated are the same rows that go through the SAE, by zeros or by their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from husai_core.activations.extract import TOKENS_PER_PASS
from husai_core.benchmarks.reconstruction import ALL, USUAL, Reconstruction, Spread, membership
from husai_core.benchmarks.sample import Sample
from husai_core.models.model import Model, Replace
from husai_core.saes.sae import SAE
from husai_core.stability.intervals import Statistic

Array = NDArray[np.float64]
LOGITS = 1 << 25
"""Logits that are held at once, twice or three times."""
LEAST_RISE = 0.01
"""Nats by which ablation must raise the cross-entropy, or the divergence, before a share of that says anything."""
EXAMPLES = 2048
ABLATIONS = {"zero_ablation": "", "mean_ablation": "_mean_ablation"}
"""What the shares recovered that an ablation gives end in; the published ones are over zero ablation."""


@dataclass(frozen=True)
class Survey:
    """What is known of the rows before SAEs read them: their mean [d], their norms [n], some of them [m, d]."""

    mean: Tensor
    norms: Tensor
    examples: Tensor


@dataclass(frozen=True)
class Reading:
    """A network on a device, the held-out sequences that it reads, and the hook at which SAEs stand in for it."""

    model: Model
    sample: Sample
    hook: str
    device: str

    def passes(self) -> list[slice]:
        """Blocks of sequences that a forward pass can hold."""
        logits = self.sample.predicted.shape[1] * self.model.d_vocab
        size, n = max(1, min(TOKENS_PER_PASS // self.sample.rows.shape[1], LOGITS // logits)), len(self.sample)
        return [slice(start, min(n, start + size)) for start in range(0, n, size)]

    def rows(self, block: slice) -> Tensor:
        """Rows [m, d] of some sequences, from a forward pass that ends at the hook."""
        inputs = self.model.inputs(self.sample.tokens[block])
        activations = self.model.activations(inputs, [self.hook])[self.hook]
        return activations[self.sample.rows[block].to(self.device)]


def survey(reading: Reading, on_block: Callable[[int], None]) -> Survey:
    """Read all rows once; `on_block` hears how many sequences were read."""
    step, before = max(1, int(reading.sample.rows.sum()) // EXAMPLES), 0
    total, norms, examples = torch.zeros((), dtype=torch.float64, device=reading.device), list[Tensor](), list[Tensor]()
    for block in reading.passes():
        rows = reading.rows(block)
        total = total + rows.double().sum(0)
        norms.append(rows.norm(dim=1).cpu())
        examples.append(rows[-before % step :: step].cpu())
        before += len(rows)
        on_block(block.stop - block.start)
    return Survey((total / before).float().cpu(), torch.cat(norms), torch.cat(examples))


class _Losses:
    """Sums of cross-entropy and of divergence from the model's own predictions, by group."""

    def __init__(self, groups: int) -> None:
        self.cross_entropy, self.divergence, self.n = np.zeros((3, groups))

    def add(self, predicted: Tensor, spliced: _Spliced) -> None:
        """Count a block's predictions in: their log-probabilities [q, d_vocab]."""
        reference, targets = spliced.reference, spliced.targets
        surprise = -predicted.gather(1, targets[:, None])[:, 0]
        divergence = (reference.exp() * (reference - predicted)).sum(1)
        sums = spliced.by_prediction @ torch.stack([surprise, divergence, torch.ones_like(surprise)], 1).double()
        for total, added in zip((self.cross_entropy, self.divergence, self.n), sums.T.cpu().numpy(), strict=True):
            total += added


@dataclass(frozen=True)
class Measured:
    """Figures by name: of the model and its ablations, and of each SAE."""

    model: dict[str, Statistic]
    saes: list[dict[str, Statistic]]


def measure(
    reading: Reading,
    saes: Sequence[SAE],
    mean: Tensor,
    limit: float,
    dense_above: float,
    on_block: Callable[[int], None],
) -> Measured:
    """Put zeros, the mean and each SAE in place of the activations at the hook, one after another.

    Args:
        reading: the network and what it reads.
        saes: at least one.
        mean: of all rows [d].
        limit: rows of a larger norm are outliers.
        dense_above: latents that fire on more than this share of the rows are dense.
        on_block: hears how many sequences were read, for every ablation and SAE.
    """
    sample, mean = reading.sample, mean.to(reading.device)
    groups = sample.groups
    spread = Spread(groups, mean, limit)
    reconstructions = [Reconstruction(sae.to(reading.device), groups) for sae in saes]
    losses = [_Losses(groups) for _ in range(1 + len(ABLATIONS) + len(saes))]
    for block in reading.passes():
        spliced = _Spliced(reading, block)
        losses[0].add(spliced.reference, spliced)
        weights = spread.add(spliced.rows, spliced.group_of_row)
        replacements = _replacements(spliced.rows, mean, reconstructions, weights)
        for loss, replacement in zip(losses[1:], replacements, strict=True):
            loss.add(spliced.predictions(replacement), spliced)
            on_block(block.stop - block.start)
    return _figures(losses, reconstructions, spread, sample.unit, dense_above)


def _replacements(
    rows: Tensor, mean: Tensor, reconstructions: Sequence[Reconstruction], weights: Tensor
) -> Iterator[Tensor]:
    """What takes the place of rows [m, d]: zeros, the mean, and what each SAE makes of them."""
    yield torch.zeros_like(rows)
    yield mean.expand_as(rows)
    for reconstruction in reconstructions:
        yield reconstruction.add(rows, weights)


class _Spliced:
    """A block of sequences: its `rows` [m, d] at the hook, and the log-probabilities [q, d_vocab] of its predictions.

    `reference` are those of the model itself, `targets` [q] the right tokens; `group_of_row` [m] says to which group a
    row belongs, `by_prediction` [groups, q] the same of predictions, as ones and zeros.
    """

    def __init__(self, reading: Reading, block: slice) -> None:
        self.reading, self.tokens = reading, reading.sample.tokens[block]
        sample = reading.sample
        self.at, self.predicted = (mask[block].to(reading.device) for mask in (sample.rows, sample.predicted))
        group = sample.group[block].to(reading.device)
        self.group_of_row = group[self.at.nonzero()[:, 0]]
        self.by_prediction = membership(group[self.predicted.nonzero()[:, 0]], sample.groups)
        self.targets = reading.model.targets(self.tokens).to(reading.device)[self.predicted]
        self.reference = self._predictions(self._keep)

    def predictions(self, rows: Tensor) -> Tensor:
        """The log-probabilities with other rows [m, d] in place of those at the hook."""

        def put(values: Tensor) -> Tensor:
            values = values.clone()
            values[self.at] = rows.to(values.dtype)
            return values

        return self._predictions(put)

    def _keep(self, values: Tensor) -> Tensor:
        self.rows = values[self.at]
        return values

    def _predictions(self, replace: Replace) -> Tensor:
        logits = self.reading.model.logits_with(self.tokens, self.reading.hook, replace)
        return logits[self.predicted].log_softmax(1)


def _figures(
    losses: Sequence[_Losses], reconstructions: Sequence[Reconstruction], spread: Spread, unit: str, dense_above: float
) -> Measured:
    clean, *ablated = losses[: 1 + len(ABLATIONS)]
    n_groups = len(clean.n)

    def per_prediction(sums: Array) -> Statistic:
        return Statistic(n_groups, lambda w: w @ sums / (w @ clean.n), unit=unit)

    def recovered(ablated: Array, spliced: Array, clean_sums: Array) -> Statistic:
        return Statistic(n_groups, lambda w: _share(w, ablated - spliced, ablated - clean_sums, clean.n), unit=unit)

    model = {"cross_entropy_model": per_prediction(clean.cross_entropy)}
    for name, loss in zip(ABLATIONS, ablated, strict=True):
        model[f"cross_entropy_{name}"] = per_prediction(loss.cross_entropy)
        model[f"kl_{name}"] = per_prediction(loss.divergence)
    model["outlier_fraction"] = Statistic(n_groups, lambda w: 1 - w @ spread.n[USUAL] / (w @ spread.n[ALL]), unit=unit)
    saes = list[dict[str, Statistic]]()
    for loss, reconstruction in zip(losses[1 + len(ABLATIONS) :], reconstructions, strict=True):
        figures = dict[str, Statistic]()
        for ending, other in zip(ABLATIONS.values(), ablated, strict=True):
            figures[f"loss_recovered{ending}"] = recovered(other.cross_entropy, loss.cross_entropy, clean.cross_entropy)
            figures[f"kl_recovered{ending}"] = recovered(other.divergence, loss.divergence, clean.divergence)
        figures["cross_entropy"] = per_prediction(loss.cross_entropy)
        figures["cross_entropy_increase"] = per_prediction(loss.cross_entropy - clean.cross_entropy)
        figures["kl"] = per_prediction(loss.divergence)
        saes.append(figures | reconstruction.figures(spread, unit, dense_above))
    return Measured(model, saes)


def _share(w: Array, part_of: Array, whole: Array, n: Array) -> Array:
    """The ratio of two sums, weighted by group [r, n]; NaN where the whole is too small per prediction to divide by."""
    total = w @ whole
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Array = np.where(total / (w @ n) > LEAST_RISE, w @ part_of / total, np.nan)
    return share
