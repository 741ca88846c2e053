"""What SAEs keep of a language model on the text that they were trained on, and on others.

Probes from the latents to what kind of token comes next are fitted on the rows of the first text and tested on held-out
rows of every text; probes on the raw rows stand beside. KL recovered is measured with the SAE in place of the
activations (see `splice`): under a shift, cross-entropy can prefer a random SAE where the model itself hardly does
better than to guess, and KL does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from husai_core.activations.store import Activations
from husai_core.benchmarks import splice, text_labels
from husai_core.benchmarks.splice import Reading
from husai_core.benchmarks.text_labels import CLASSES, Labelled
from husai_core.models.language import LanguageModel
from husai_core.saes.sae import SAE
from husai_core.stability import probe
from husai_core.stability.halves import Figure
from husai_core.stability.intervals import Independent, Statistic, average, seed_mean

KL = "kl_recovered"
DENSE_ABOVE = 0.1
Groups = Mapping[str, Sequence[SAE]]
"""The SAEs (`saes`), those at half the tokens (`halves`, none where these are unknown), and random ones (`random`)."""


@dataclass(frozen=True)
class OnText:
    """One figure on one text: of each SAE, of each at half the tokens, and the variance over the text of their mean."""

    values: list[float]
    halves: list[float]
    over_text: Independent

    @property
    def level(self) -> Figure:
        """The mean over seeds, with the variance over the text in its interval."""
        change = seed_mean(_less(self.values, self.halves)) if self.halves else None
        return Figure(seed_mean(self.values).minus(self.over_text), change)

    def drop_to(self, other: OnText) -> Figure:
        """How much less the figure is on another text, by seed."""
        whole = seed_mean(_less(self.values, other.values))
        change = None
        if self.halves:
            change = seed_mean(_less(_less(self.values, self.halves), _less(other.values, other.halves)))
        return Figure(whole.minus(self.over_text).minus(other.over_text), change)


def _less(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


@dataclass(frozen=True)
class Probes:
    """Balanced accuracies on every text: of probes on the latents, of such on the raw rows, and the former less these.

    The two lists of figures are by group, `saes` and `random`.
    """

    raw: list[float]
    accuracy: dict[str, list[OnText]]
    beyond_raw: dict[str, list[OnText]]


def probes(
    model: LanguageModel, texts: Sequence[Activations], groups: Groups, most: int, seed: int, device: str
) -> Probes:
    """Probes to the kind of the next token.

    Args:
        model: whose tokens the rows are.
        texts: activations of the text that the SAEs were trained on, then of the others.
        groups: the SAEs.
        most: rows to fit and to test on, drawn with `seed`.
        seed: of that draw.
        device: where the SAEs are computed.

    Raises:
        UserError: the rows do not say where in a text they come from.
    """
    classes = text_labels.token_classes(model)

    def drawn(text: Activations, split: str) -> Labelled:
        return text_labels.labelled(text, classes, split, most, seed)

    train, validation = drawn(texts[0], "train"), drawn(texts[0], "validation")
    test = [drawn(text, "test") for text in texts]

    def right(features: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """By text, whether a probe on some features of the rows is right about each, as 0 or 1: double [n]."""
        fitted = probe.fit(
            (features(train.rows), train.label),
            (features(validation.rows), validation.label),
            len(CLASSES),
            probe.Probe.balanced_accuracy,
        )
        return [fitted.right(features(rows.rows), rows.label).double() for rows in test]

    def latents(sae: SAE) -> Callable[[Tensor], Tensor]:
        return lambda rows: sae.to(device).encode(rows.to(device)).cpu()

    of_raw = right(lambda rows: rows)
    of_groups = {name: [right(latents(sae)) for sae in saes] for name, saes in groups.items()}

    def figures(name: str, less: Sequence[Tensor]) -> list[OnText]:
        halves = of_groups["halves"] if name == "saes" else []
        return [
            _on_rows([of_sae[at] for of_sae in of_groups[name]], [half[at] for half in halves], less[at], rows.label)
            for at, rows in enumerate(test)
        ]

    nothing = [torch.zeros_like(values) for values in of_raw]
    return Probes(
        [probe.over_classes(values, rows.label)[0] for values, rows in zip(of_raw, test, strict=True)],
        {name: figures(name, nothing) for name in ("saes", "random")},
        {name: figures(name, of_raw) for name in ("saes", "random")},
    )


def _on_rows(saes: Sequence[Tensor], halves: Sequence[Tensor], less: Tensor, label: Tensor) -> OnText:
    """Means over classes of values [n] per SAE less others [n]; the variance is over the rows."""
    values, at_half = ([probe.over_classes(sae - less, label)[0] for sae in group] for group in (saes, halves))
    variance = probe.over_classes(torch.stack(list(saes)).mean(0) - less, label)[1]
    return OnText(values, at_half, Independent(0.0, variance, len(label) - 1))


def recovered(reading: Reading, groups: Groups, on_block: Callable[[int], None]) -> dict[str, OnText]:
    """KL recovered on one text, over zero ablation, by group; the variance is over groups of its sequences.

    Args:
        reading: the model with held-out sequences of the text.
        groups: the SAEs.
        on_block: hears how many sequences were read, for every ablation and SAE.
    """
    survey = splice.survey(reading, on_block)
    saes = [sae for members in groups.values() for sae in members]
    measured = splice.measure(reading, saes, survey.mean, inf, DENSE_ABOVE, on_block).saes
    figures = dict[str, list[Statistic]]()
    for name, members in groups.items():
        of_group, measured = measured[: len(members)], measured[len(members) :]
        figures[name] = [figure[KL] for figure in of_group]
    return {
        name: OnText(
            [figure.value for figure in figures[name]],
            [figure.value for figure in figures["halves"]] if name == "saes" else [],
            Independent(0.0, average(figures[name]).variance, figures[name][0].n - 1),
        )
        for name in ("saes", "random")
    }
