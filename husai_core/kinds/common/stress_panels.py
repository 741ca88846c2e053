"""Panels and words that the stresses share: their headline, their overlap measures, their folded tables.

Light: no torch, no scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from husai_core import panels
from husai_core.evidence import Evidence

PWMCC = "PWMCC (mean maximum cosine between seeds)"
"""How the measure is called where it first stands."""


POLICY = "A release policy sets its own bar."
"""What a reader has to know of a figure that release policies read: that 0 is not what they ask for."""


def headline(result: Evidence, text: str, figures: Sequence[tuple[str, str]]) -> panels.Headline:
    """A stress's answer in one sentence with its figures; it measures, so it passes and fails nothing.

    Args:
        figures: label and statistic; one that the result lacks is left out.
    """
    note = caveats(result)
    known = [(label, result.statistics.get(name)) for label, name in figures]
    shown = [panels.Figure(label=label, value=value) for label, value in known if value is not None]
    return panels.Headline(text=text, tone="unknown" if note else "neutral", note=note, figures=shown)


def caveats(result: Evidence) -> str:
    """What keeps the figures of a result from being relied on, in sentences; empty if nothing does."""
    sentences = []
    if result.unconverged:
        sentences.append(f"These trainings had not converged: {'; '.join(result.unconverged)}.")
    elif not result.converged and not result.imported:
        sentences.append("Not every training had converged.")
    if result.siblings_left_out:
        count = result.siblings_left_out
        sentences.append(
            f"{count} seed{'s' * (count > 1)} of the same training {'were' if count > 1 else 'was'} left out."
        )
    if result.imported:
        sentences.append("The SAEs were imported, so how they were trained is known from their user only.")
    if result.leaks_label:
        sentences.append("The input of the model shows the answer, so features may be copies of it.")
    return " ".join(sentences)


METRICS = {
    "pwmcc": "PWMCC",
    "mmcs_signed": "MMCS, signed",
    "shared_fraction_0_7": "shared fraction",
    "pw_mcc": "PW-MCC",
    "activation_mcc": "activation MCC",
    "activation_pw_mcc": "activation PW-MCC",
}
MEASURES = [
    "PWMCC: mean over latents of the largest |cosine| with a latent of another seed, averaged over both directions.",
    "MMCS, signed: the same with the signed cosine.",
    "Shared fraction: share of latents whose largest |cosine| is above 0.7.",
    "PW-MCC: mean |cosine| when latents are matched one to one (Song et al. 2025).",
    "Activation MCC: mean over latents of the largest correlation of activations on held-out rows; "
    "activation PW-MCC: the same, matched one to one.",
    "Alive: over latents that fire on held-out rows only. Measures differ in meaning and in chance level: compare "
    "figures of one measure only.",
]
"""What the overlap measures are."""
ENDINGS = {
    "": "observed",
    "gaussian_null": "Gaussian null",
    "shuffled_null": "shuffled control",
    "covariance_null": "covariance control",
    "excess": "above largest null",
    "excess_rescaled": "the same, of what the null leaves",
    "gaussian_excess": "above Gaussian null",
    "shuffled_excess": "above shuffled",
    "covariance_excess": "above covariance",
    "trained": "trained network",
    "untrained": "untrained network",
    "trained_minus_untrained": "trained - untrained",
    "trained_excess": "trained, above null",
    "untrained_excess": "untrained, above null",
}


def measure(name: str) -> tuple[str, str]:
    """A statistic's measure and what is said of it, in words: `pwmcc_alive_shuffled_null` and the like."""
    metric = max((m for m in METRICS if name == m or name.startswith(f"{m}_")), key=len, default=None)
    if metric is None:
        return name.replace("_", " "), ""
    ending = name[len(metric) :].removeprefix("_")
    alive = ending == "alive" or ending.startswith("alive_")
    ending = ending.removeprefix("alive").removeprefix("_")
    label = METRICS[metric] + (", alive" if alive else "")
    return label, ENDINGS.get(ending, ending.replace("_", " "))


UNITS = "With 95 % intervals, whose unit is the seed; of a Gaussian null, the simulated pair. n: number of units."


def statistics_table(
    result: Evidence,
    words: Callable[[str], tuple[str, str]] = measure,
    title: str = "Every statistic",
    note: str = UNITS,
) -> panels.Table:
    """All statistics of a result with their intervals, folded; `words` names the measure and the figure of each."""
    rows: list[list[panels.Cell]] = [
        [*words(name), estimate, estimate.n] for name, estimate in result.statistics.items()
    ]
    columns = [
        panels.Column(label="measure"),
        panels.Column(label="figure"),
        panels.Column(label="value", format="number"),
        panels.Column(label="n", format="integer"),
    ]
    return panels.Table(title=title, note=note, folded=True, columns=columns, rows=rows)


def measures() -> panels.Text:
    """What the overlap measures are, folded."""
    return panels.Text(title="What the measures are", folded=True, paragraphs=MEASURES)
