"""Panels about several groups of SAEs that were trained alike but for one choice: a bank's variants, a study's cells.

Light: no torch, no scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.kinds.common.panels import interval, interval_row, number
from husai_core.stability.result_tables import Member
from husai_core.stability.settled import Settled

MATCHED = 1.1
"""Ratio of mean L0 up to which variants are called equally sparse."""
REST_NOTES = {
    "settled": "settled: the last doubling of the tokens changed little.",
    "converged": "converged: seeds whose training had.",
}


@dataclass(frozen=True)
class Variant:
    """SAEs that differ in their seed alone; `means` over them, by the names of `Member`'s figures."""

    name: str
    architecture: str
    members: Sequence[Member]
    means: Mapping[str, Estimate]
    settled: Settled | None = None
    """Whether the last doubling of the tokens changed little; None in earlier results, which have `converged` alone."""

    def value(self, figure: str) -> float | None:
        """The mean of a figure, if it is known."""
        return self.means[figure].value

    @property
    def converged(self) -> int:
        """How many of the trainings had converged."""
        return sum(bool(member.converged) for member in self.members)

    @property
    def rest(self) -> tuple[str, str]:
        """What is known of the end of the trainings, and the name of that."""
        if self.settled is None:
            return f"{self.converged} of {len(self.members)}", "converged"
        return self.settled, "settled"


def headline(variants: Sequence[Variant], note: str) -> panels.Headline:
    """One variant's figures, or the range of several with a warning where they are not equally sparse."""
    count = sum(len(v.members) for v in variants)
    if len(variants) == 1:
        return _single(variants[0]).model_copy(update={"note": note})
    ordered = sorted(variants, key=lambda variant: variant.value("explained_variance") or 0.0)
    worst, best = ordered[0], ordered[-1]
    warning = sparsity_warning(variants)
    text = (
        f"{len(variants)} variants, {count} SAEs: explained variance on held-out rows from "
        f"{number(worst.value('explained_variance'))} ({worst.name}) to "
        f"{number(best.value('explained_variance'))} ({best.name}). {warning}"
    )
    return panels.Headline(text=text.strip(), note=note, tone="unknown" if warning else "neutral")


def _single(variant: Variant) -> panels.Headline:
    count = len(variant.members)
    text = (
        f"{count} SAE{'s' * (count > 1)} ({variant.name}) explain{'s' * (count == 1)} "
        f"{interval(variant.means['explained_variance'])} of the variance of held-out rows, with "
        f"{number(variant.value('l0'))} active latents per row."
    )
    figures = [
        panels.Figure(label="seeds", value=count, format="integer"),
        panels.Figure(label="explained variance", value=variant.means["explained_variance"]),
        panels.Figure(label="active latents per row (L0)", value=variant.means["l0"]),
        panels.Figure(label="dead latents", value=variant.means["dead_fraction"], format="share"),
        panels.Figure(label="drift (cosine with start)", value=variant.means["drift_from_init"]),
        panels.Figure(label=variant.rest[1], value=variant.rest[0]),
    ]
    return panels.Headline(text=text, figures=figures)


def sparsity_warning(variants: Sequence[Variant]) -> str:
    """A sentence that warns where the variants are not equally sparse; else nothing."""
    levels = [level for variant in variants if (level := variant.value("l0")) is not None]
    if not levels or max(levels) <= MATCHED * min(levels):
        return ""
    return f"The variants differ in L0 ({number(min(levels))} to {number(max(levels))}): compare them at equal L0."


def table(variants: Sequence[Variant]) -> panels.Table:
    """The means of every variant, one a row."""
    rows: list[list[panels.Cell]] = [
        [
            variant.name,
            variant.means["explained_variance"],
            variant.means["l0"],
            variant.value("dead_fraction"),
            variant.rest[0].replace(" of ", "/"),
        ]
        for variant in variants
    ]
    columns = [
        panels.Column(label="variant"),
        panels.Column(label="expl. variance", format="number", digits=3),
        panels.Column(label="L0", format="number", digits=1),
        panels.Column(label="dead", format="share"),
        panels.Column(label=variants[0].rest[1]),
    ]
    note = f"Means over seeds with 95 % intervals, on test rows. {REST_NOTES[variants[0].rest[1]]}"
    return panels.Table(title="Variants", note=note, columns=columns, rows=rows)


def frontier(variants: Sequence[Variant]) -> list[panels.AnyPanel]:
    """Explained variance against sparsity; nothing where neither is known of any variant."""
    points = [
        panels.ScatterPoint(label=v.name, x=v.means["l0"], y=v.means["explained_variance"], group=v.architecture)
        for v in sorted(variants, key=lambda variant: variant.value("l0") or 0.0)
        if v.value("l0") is not None and v.value("explained_variance") is not None
    ]
    positive = all(min(end for end in (p.x.low, p.x.value) if end is not None) > 0 for p in points)
    scatter = panels.Scatter(
        title="Explained variance against sparsity",
        note="Up and to the left is better. Points of one architecture are joined.",
        points=points,
        x_label="L0 (active latents per row)",
        y_label="explained variance",
        log_x=positive and bool(sparsity_warning(variants)),
        joined=True,
    )
    return [scatter] if points else []


def explained_variance(variants: Sequence[Variant]) -> panels.Intervals:
    """The explained variance of every variant with that of its seeds."""
    rows = [
        row
        for v in variants
        for row in interval_row(
            v.name, v.means["explained_variance"], [(f"seed {m.seed}", m.explained_variance) for m in v.members]
        )
    ]
    return panels.Intervals(
        title="Explained variance on test rows",
        note="Means over seeds with 95 % intervals; each point is one seed.",
        rows=rows,
        x_label="share of the variance",
    )
