"""Does a latent do in the network what its twins in sibling SAEs do? Ablation and steering, beside controls.

A row x of the activations at a hook is a sum over latents, f_i(x) d_i, plus a bias and what the SAE misses. Ablating a
latent takes its own term away and leaves all else, the SAE's error included (Marks et al. 2024, arXiv 2403.19647);
steering adds a multiple of d_i (Turner et al. 2023, arXiv 2308.10248). The effect of either is the change of the logits
about their mean over the vocabulary, since a constant added to all logits changes no prediction.

Twins are matched by |cosine| (see `trials`), which says nothing about signs, so that twins that point the opposite way
count against the agreement, and matching alone lifts no effect above its controls:

- random: the mean of a random direction and its opposite in place of the latent's;
- other: the direction of another alive latent of the sibling, drawn from the same stratum of frequencies.

Both get the norm of the latent's own term on every row. All are at work on the same rows, those on which the latent
fires (ablation) or all of the sequence (steering), and effects are compared at the predictions made there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from husai_core.activations.extract import TOKENS_PER_PASS
from husai_core.benchmarks.splice import LOGITS, Reading
from husai_core.benchmarks.trials import NONE, Dictionary, Trial
from husai_core.models.model import Replace

MODES = ("ablation", "steering")


class Effects:
    """Sums over predictions of the effects of v interventions, the first of which is the latent's own.

    `products` [v] with the latent's own, `squares` [v], and `change` [v, d_vocab], the summed changes of the logits.
    """

    def __init__(self, interventions: int, d_vocab: int, device: str) -> None:
        self.products, self.squares = torch.zeros(2, interventions, dtype=torch.float64, device=device)
        self.change = torch.zeros(interventions, d_vocab, dtype=torch.float64, device=device)
        self.predictions = 0

    def add(self, start: int, effects: Tensor, reference: Tensor) -> None:
        """Count effects [w, q, d_vocab] of the interventions from `start` on in; `reference` is the first of all."""
        at = slice(start, start + len(effects))
        self.products[at] += effects.flatten(1) @ reference.flatten()
        self.squares[at] += effects.flatten(1).norm(dim=1).double().square()
        self.change[at] += effects.sum(1)

    @property
    def cosines(self) -> Tensor:
        """Cosines of the other effects with the latent's own [v - 1], float64 on the CPU.

        What has no effect agrees in nothing: 0. Where the latent itself has none, there is nothing to agree with: NaN.
        """
        norms = (self.squares[0] * self.squares[1:]).sqrt()
        cosines = torch.where(norms > 0, self.products[1:] / norms, torch.zeros_like(norms))
        return self._known(cosines.clamp(-1, 1))

    def sign_agreement(self, k: int) -> Tensor:
        """Share of the k tokens that the latent changes most, on average, that the others change to the same side.

        A token that something does not change counts half, as by chance.
        """
        tokens = self.change[0].abs().topk(min(k, self.change.shape[1])).indices
        same = (self.change[1:, tokens] * self.change[0, tokens]).sign()
        return self._known((1 + same).mean(1) / 2)

    def _known(self, figures: Tensor) -> Tensor:
        return torch.where(self.squares[0] > 0, figures, torch.nan).cpu()


def agreements(measured: Sequence[Mapping[str, Effects]], tokens: int, n: int, place: int) -> dict[str, Tensor]:
    """By mode and figure, how far the effects of latents of one SAE of `n` agree with those of what is elsewhere.

    Returns:
        For each latent, its twins, the random direction and the other latents, by the place of the sibling:
        [latents, 3, n], NaN at the SAE's own place. `tokens` is the number of tokens whose signs are compared.
    """
    figures = dict[str, Tensor]()
    for mode in MODES:
        sums = [of_latent[mode] for of_latent in measured]
        figures[f"{mode}_cosine"] = torch.stack([effects.cosines for effects in sums])
        figures[f"{mode}_sign_agreement"] = torch.stack([effects.sign_agreement(tokens) for effects in sums])
    return {name: _by_sibling(values, n, place) for name, values in figures.items()}


def _by_sibling(values: Tensor, n: int, place: int) -> Tensor:
    opposite, twin, other = torch.split(values, [2, n - 1, n - 1], dim=1)
    random = opposite.mean(1, keepdim=True).expand_as(twin)
    figures = values.new_full((len(values), 3, n), torch.nan)
    figures[:, :, torch.arange(n) != place] = torch.stack([twin, random, other], 1)
    return figures


@dataclass(frozen=True)
class _Added:
    """What interventions add to rows: each `values` [v, m] times `directions` [v, d].

    Effects count at the rows of which `counted` [m] is true.
    """

    values: Tensor
    directions: Tensor
    counted: Tensor


@torch.no_grad()
def effects(
    reading: Reading, siblings: Sequence[Dictionary], trial: Trial, strength: float, on_block: Callable[[int], None]
) -> dict[str, Effects]:
    """The effects of a latent, by mode: its own, those of the random direction and its opposite, of twins, of others.

    Args:
        reading: as by `at_predictions`.
        siblings: all SAEs.
        trial: the latent and what it is compared with.
        strength: steering adds this multiple of a latent's mean where it fires.
        on_block: hears how many sequences were measured.
    """
    interventions, length = 3 + len(trial.twins) + len(trial.others), reading.sample.rows.shape[1]
    sums = {mode: Effects(interventions, reading.model.d_vocab, reading.device) for mode in MODES}
    size = max(1, min(TOKENS_PER_PASS // length, LOGITS // (length * reading.model.d_vocab)))
    for sequences in torch.split(torch.tensor(trial.sequences), size):
        block = _Block(reading, sequences)
        for mode, added in _interventions(siblings, trial, block.rows, strength).items():
            _add(sums[mode], block, added, max(1, size // len(sequences)))
        on_block(len(sequences))
    return sums


class _Block:
    """Some sequences: their rows [m, d] at the hook, and the logits [m, d_vocab] of their predictions as they are."""

    def __init__(self, reading: Reading, sequences: Tensor) -> None:
        sample = reading.sample
        self.reading, self.tokens = reading, sample.tokens[sequences]
        self.at, self.predicted = (mask[sequences].to(reading.device) for mask in (sample.rows, sample.predicted))
        self.clean = self._logits(1, self._keep, self.predicted)[0]

    def _keep(self, activations: Tensor) -> Tensor:
        self.rows = activations[self.at]
        return activations

    def changes(self, values: Tensor, directions: Tensor, counted: Tensor) -> Tensor:
        """Changes of the logits, about their mean, by `values` [v, m] times `directions` [v, d].

        Returns:
            [v, c, d_vocab] for the c predictions of which `counted` [m] is true.
        """

        def put(activations: Tensor) -> Tensor:
            changed = activations.clone(memory_format=torch.contiguous_format)
            changed.view(len(values), len(self.tokens), *changed.shape[1:])[:, self.at] += (
                values[:, :, None] * directions[:, None]
            )
            return changed

        change = self._logits(len(values), put, self.predicted.masked_scatter(self.predicted, counted))
        change -= self.clean[counted]
        change -= change.mean(2, keepdim=True)
        return change

    def _logits(self, times: int, replace: Replace, predicted: Tensor) -> Tensor:
        """Logits [times, c, d_vocab] of some predictions, with every sequence read so many times."""
        logits = self.reading.model.logits_with(self.tokens.repeat(times, 1), self.reading.hook, replace)
        return logits.reshape(times, len(self.tokens), *logits.shape[1:])[:, predicted]


def _add(sums: Effects, block: _Block, added: _Added, size: int) -> None:
    """Count the effects in a block in, of `size` interventions at a time."""
    reference: Tensor | None = None
    for start in range(0, len(added.values), size):
        values = added.values[start : start + size]
        change = block.changes(values, added.directions[start : start + size], added.counted)
        change[(values == 0).all(1)] = 0
        reference = change[0] if reference is None else reference
        sums.add(start, change, reference)
    sums.predictions += int(added.counted.sum())


def _interventions(siblings: Sequence[Dictionary], trial: Trial, rows: Tensor, strength: float) -> dict[str, _Added]:
    """What each intervention adds to rows [m, d]; see `effects` for their order."""
    dictionary = siblings[trial.place]
    latents, length = dictionary.sae.encode(rows)[:, trial.latent], dictionary.sae.W_dec[trial.latent].norm()
    fires, everywhere = latents != 0, torch.ones_like(latents)
    directions = [dictionary.direction(trial.latent), trial.random, -trial.random]
    ablated, steered = [-latents * length] * 3, [everywhere * dictionary.strength[trial.latent] * length] * 3
    for place, twin in trial.twins.items():
        sibling = siblings[place]
        exists, norm = float(twin != NONE), sibling.sae.W_dec[twin].norm()
        directions.append(sibling.direction(twin))
        ablated.append(-exists * norm * sibling.sae.encode(rows)[:, twin] * fires)
        steered.append(exists * norm * sibling.strength[twin] * everywhere)
    for place, other in trial.others.items():
        directions.append(siblings[place].direction(other))
        ablated.append(ablated[0])
        steered.append(steered[0])
    stacked = torch.stack(directions)
    return {
        "ablation": _Added(torch.stack(ablated), stacked, fires),
        "steering": _Added(strength * torch.stack(steered).to(rows.dtype), stacked, everywhere.bool()),
    }
