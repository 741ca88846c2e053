"""Panels and words that the stresses share: their headline, their overlap measures, their folded tables.

Light: no torch, no scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from husai_core import panels
from husai_core.evidence import Answer, Evidence, RecipeCheck
from husai_core.kinds.common.panels import interval_row
from husai_core.release.comparable import FIGURES
from husai_core.stability.result_tables import Member

PWMCC = "PWMCC (mean maximum cosine between seeds)"
"""How the measure is called where it first stands."""


CHANGED = "... changed by the last doubling of the tokens"
CONTROL_ROWS = "rows that the controls were trained on"
"""Beside the figures, since overlaps of the same SAEs with controls of other rows differ."""
POLICY = "A release policy sets its own bar."
"""What a reader has to know of a figure that release policies read: that 0 is not what they ask for."""


def headline(result: Evidence, text: str, figures: Sequence[tuple[str, str]]) -> panels.Headline:
    """A stress's answer in one sentence with its figures; it measures, so it passes and fails nothing.

    Args:
        figures: label and statistic; one that the result lacks is left out. Beside the first stands its change by the
            last doubling of the tokens, where that is known.
    """
    note = caveats(result)
    known = [(label, result.statistics.get(name)) for label, name in figures]
    formats: dict[str, panels.Format] = {label: "share" for label, name in figures if name.endswith("_fraction")}
    shown = [
        panels.Figure(label=label, value=value, format=formats.get(label, "number"))
        for label, value in known
        if value is not None
    ]
    changed = [result.changes[name] for _, name in figures if name in result.changes][:1]
    shown[1:1] = [panels.Figure(label=CHANGED, value=change) for change in changed]
    if result.control_rows is not None:
        shown.append(panels.Figure(label=CONTROL_ROWS, value=result.control_rows, format="integer"))
    return panels.Headline(text=text, tone="unknown" if note else "neutral", note=note, figures=shown)


def caveats(result: Evidence) -> str:
    """What keeps the figures of a result from being relied on, in sentences; empty if nothing does."""
    sentences = _unsettled(result)
    if result.siblings_left_out:
        count = result.siblings_left_out
        sentences.append(
            f"{count} seed{'s' * (count > 1)} of the same training {'were' if count > 1 else 'was'} left out."
        )
    if result.imported:
        claim = AGREES[result.recipe_check.agrees if result.recipe_check else None]
        sentences.append(f"The SAEs were imported, so how they were trained is known from their user only{claim}.")
    if result.leaks_label:
        sentences.append("The input of the model shows the answer, so features may be copies of it.")
    return " ".join(sentences)


AGREES: dict[Answer | None, str] = {
    None: "",
    "yes": "; SAEs that were trained here by the claimed recipe are like them",
    "no": "; SAEs that were trained here by the claimed recipe are unlike them, so controls say nothing about them",
    "unknown": "; whether SAEs that were trained here by the claimed recipe are like them is undecided",
}
"""What is said of imported SAEs, by whether the claimed recipe makes such SAEs here."""


def recipe_check(check: RecipeCheck | None) -> list[panels.AnyPanel]:
    """Imported SAEs beside those of their claimed recipe; nothing where none were trained here."""
    if check is None:
        return []
    rows: list[list[panels.Cell]] = [
        [
            FIGURES.get(name, name),
            figure.imported,
            figure.retrained,
            figure.difference,
            f"\N{PLUS-MINUS SIGN}{figure.margin:.3g}",
            figure.agrees,
        ]
        for name, figure in check.figures.items()
    ]
    columns = [
        panels.Column(label="figure"),
        panels.Column(label="imported", format="number"),
        panels.Column(label="retrained here", format="number"),
        panels.Column(label="difference", format="number"),
        panels.Column(label="margin"),
        panels.Column(label="agrees"),
    ]
    note = (
        f"{len(check.retrained)} SAEs ({', '.join(digest[:12] for digest in check.retrained)}) were trained here by "
        f"the recipe that is claimed of the imported ones; all are measured on {check.rows} held-out rows. "
        "A figure agrees where the whole interval of the difference, over seeds, lies inside the margin. Unless all "
        "agree, controls and halves that are trained by this recipe say nothing about the imported SAEs."
    )
    return [panels.Table(title="The claimed recipe, checked", note=note, columns=columns, rows=rows)]


def given_and_retrained(result: Evidence, members: Sequence[Member]) -> dict[str, Sequence[Member]]:
    """The table of SAEs that a stress is about, those apart that were trained here by a claimed recipe."""
    imported = len(result.subject)
    if len(members) <= imported:
        return {"SAEs": members}
    return {"SAEs": members[:imported], "SAEs retrained here": members[imported:]}


def _unsettled(result: Evidence) -> list[str]:
    """What is known against the trainings; earlier results judged by their coming to rest."""
    if result.provenance is not None:
        unknown = "Nothing was measured at half the tokens, so it is unknown what more would change."
        return [] if result.changes else [unknown]
    if result.unconverged:
        return [f"These trainings had not converged: {'; '.join(result.unconverged)}."]
    return [] if result.converged or result.imported else ["Not every training had converged."]


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
    rescaled = ", rescaled" * ending.endswith("_rescaled")
    ending = ending.removesuffix("_rescaled")
    return label, ENDINGS.get(ending, ending.replace("_", " ")) + rescaled


UNITS = (
    "With 95 % intervals, whose unit is the seed; of a Gaussian null, the simulated pair. Last doubling: whole less "
    "half the tokens, paired by seed. n: number of units."
)


def statistics_table(
    result: Evidence,
    words: Callable[[str], tuple[str, str]] = measure,
    title: str = "Every statistic",
    note: str = UNITS,
) -> panels.Table:
    """All statistics of a result with their intervals, folded; `words` names the measure and the figure of each."""
    rows: list[list[panels.Cell]] = [
        [*words(name), estimate, result.changes.get(name), estimate.n] for name, estimate in result.statistics.items()
    ]
    columns = [
        panels.Column(label="measure"),
        panels.Column(label="figure"),
        panels.Column(label="value", format="number"),
        panels.Column(label="last doubling", format="number"),
        panels.Column(label="n", format="integer"),
    ]
    return panels.Table(title=title, note=note, folded=True, columns=columns, rows=rows)


def changes(
    result: Evidence, names: Sequence[str], words: Callable[[str], tuple[str, str]] = measure
) -> list[panels.AnyPanel]:
    """What the last doubling of the tokens changed of some statistics; nothing where that is known of none."""
    labelled = [(", ".join(filter(None, words(name))), result.changes.get(name)) for name in names]
    rows = [row for label, change in labelled for row in interval_row(label, change)]
    note = (
        "Whole less half the tokens, of SAEs and controls alike, paired by seed, with 95 % intervals. A release policy "
        "sets the margin inside which a change counts as little."
    )
    zero = [panels.Reference(label="no change", value=0.0)]
    title = "What the last doubling of the tokens changed"
    return [panels.Intervals(title=title, note=note, rows=rows, references=zero, x_label="change")] if rows else []


def measures() -> panels.Text:
    """What the overlap measures are, folded."""
    return panels.Text(title="What the measures are", folded=True, paragraphs=MEASURES)
