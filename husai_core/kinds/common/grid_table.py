"""The one table of a grid: means with intervals over seeds, differences corrected for their number, and CSV.

Nothing here hides what is missing: every mean says how many of its seeds there are, and the states of all cells are
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import inf, isfinite
from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult
from husai_core.job import Job
from husai_core.kinds.common.grid import Row
from husai_core.stability.result_tables import RANGES

if TYPE_CHECKING:
    from husai_core.stability.intervals import Statistic

LEVEL = 0.05
Key = tuple[str, str]
"""Condition and variant."""


class Summary(BaseResult):
    """One variant under one condition, over its seeds."""

    condition: str
    variant: str
    seeds: int = Field(description="seeds with a trained SAE")
    planned: int = Field(description="seeds that were asked for")
    estimates: dict[str, Estimate] = Field(description="the mean of each figure, and what was measured over seeds")


class Comparison(BaseResult):
    """A variant against the one that it is compared with, paired by the seeds that both have."""

    condition: str
    variant: str
    against: str
    figure: str
    difference: Estimate = Field(description="with the interval of the same paired t-test, at any number of seeds")
    p_value: float | None = Field(description="two-sided paired t-test over seeds; unknown below 3 shared seeds")
    p_adjusted: float | None = Field(description="corrected by Holm for all comparisons of the table")

    @property
    def differs(self) -> bool | None:
        """Whether the difference stands at the 5 % level after the correction; None where that is unknown."""
        return None if self.p_adjusted is None else self.p_adjusted <= LEVEL


class GridTable(BaseResult):
    """What came of a grid."""

    figures: list[str]
    states: dict[str, int] = Field(description="number of cells by state")
    rows: list[Row]
    summaries: list[Summary]
    comparisons: list[Comparison]


def tabulate(
    rows: Sequence[Row],
    figures: Sequence[str],
    against: str | None = None,
    compared: Sequence[str] | None = None,
    estimates: Mapping[Key, Mapping[str, Estimate]] | None = None,
) -> GridTable:
    """The table of a grid's rows.

    Args:
        rows: one per cell, in the grid's order.
        figures: which figures of the rows to average over seeds.
        against: the variant that the others of a condition are compared with; none are compared without it.
        compared: figures that are compared; all unless given. The fewer, the less the correction costs.
        estimates: figures that are not means of the rows', such as overlaps, by condition and variant.

    Raises:
        ValueError: `against` is no variant of the rows.
    """
    if against is not None and against not in {row.variant for row in rows}:
        raise ValueError(f"{against!r} is no variant, so nothing can be compared with it")
    groups = {key: list(members) for key, members in groupby(rows, lambda row: (row.condition, row.variant))}
    summaries = []
    for (condition, variant), members in groups.items():
        means = {name: _mean(name, members) for name in figures}
        means |= (estimates or {}).get((condition, variant), {})
        trained = sum(row.sae is not None for row in members)
        summaries.append(
            Summary(condition=condition, variant=variant, seeds=trained, planned=len(members), estimates=means)
        )
    return GridTable(
        figures=list(dict.fromkeys(name for summary in summaries for name in summary.estimates)),
        states=dict(Counter(row.state for row in rows)),
        rows=list(rows),
        summaries=summaries,
        comparisons=[] if against is None else _comparisons(groups, against, compared or figures),
    )


def write(table: GridTable, job: Job, output: str = "table") -> None:
    """Write the summaries and the cells as CSV files into one artifact of a study's output."""
    directory = job.output(output, "table")
    (directory / "summaries.csv").write_text(to_csv(table), "utf-8")
    (directory / "cells.csv").write_text(cells_to_csv(table), "utf-8")


def to_csv(table: GridTable) -> str:
    """The summaries as CSV: each figure with the ends of its interval and its number of seeds, then its comparison."""
    ends = ("", "_low", "_high", "_n")
    columns = ["condition", "variant", "seeds", "planned", *(name + end for name in table.figures for end in ends)]
    compared = sorted({comparison.figure for comparison in table.comparisons}, key=table.figures.index)
    parts = ("difference", "difference_low", "difference_high", "difference_n", "p_adjusted")
    columns += [f"{name}_{suffix}" for name in compared for suffix in parts]
    differences = {(c.condition, c.variant, c.figure): c for c in table.comparisons}
    lines = []
    for summary in table.summaries:
        line: list[object] = [summary.condition, summary.variant, summary.seeds, summary.planned]
        line += [value for name in table.figures for value in _ends(summary.estimates.get(name))]
        for name in compared:
            comparison = differences.get((summary.condition, summary.variant, name))
            line += [*_ends(comparison.difference), comparison.p_adjusted] if comparison else [None] * len(parts)
        lines.append(line)
    return panels.as_csv([columns, *lines])


def cells_to_csv(table: GridTable) -> str:
    """Every cell as CSV, those without figures too."""
    figures = list(dict.fromkeys(name for row in table.rows for name in row.figures))
    lines = (
        [row.condition, row.variant, row.seed, row.state, row.reason, row.sae, *map(row.figures.get, figures)]
        for row in table.rows
    )
    return panels.as_csv([["condition", "variant", "seed", "state", "reason", "sae", *figures], *lines])


def present(table: GridTable) -> list[panels.AnyPanel]:
    """The panels of a table: how much of it there is, the means, the comparisons, and folded away all cells."""
    return [_headline(table), _means(table), *_differences(table), _cells(table)]


def _mean(name: str, rows: Sequence[Row]) -> Estimate:
    """The mean of a figure over the seeds that have it."""
    from husai_core.stability.intervals import seed_mean

    values = [value for row in rows if (value := row.figures.get(name)) is not None and isfinite(value)]
    if not values:
        return Estimate(value=None, method="no seed has this figure")
    estimate = seed_mean(values).estimate()
    return estimate.within(*RANGES.get(name, (-inf, inf)))


def _comparisons(groups: Mapping[Key, Sequence[Row]], against: str, figures: Sequence[str]) -> list[Comparison]:
    from husai_core.stability.comparisons import holm, p_value

    pairs = [
        (condition, variant, name, _difference(name, rows, groups.get((condition, against), [])))
        for (condition, variant), rows in groups.items()
        if variant != against
        for name in figures
    ]
    p_values = [p_value(difference) if difference else None for _, _, _, difference in pairs]
    unknown = Estimate(value=None, method="no seed is shared")
    return [
        Comparison(
            condition=condition,
            variant=variant,
            against=against,
            figure=name,
            difference=difference.estimate() if difference else unknown,
            p_value=p,
            p_adjusted=adjusted,
        )
        for (condition, variant, name, difference), p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
    ]


def _difference(name: str, rows: Iterable[Row], others: Iterable[Row]) -> Statistic | None:
    """The mean difference of a figure over the seeds that both have; None if there is none."""
    from husai_core.stability.intervals import seed_mean

    before = {row.seed: row.figures.get(name) for row in others}
    differences = [
        value - base
        for row in rows
        if (value := row.figures.get(name)) is not None and (base := before.get(row.seed)) is not None
    ]
    return seed_mean(differences) if differences else None


def _headline(table: GridTable) -> panels.Headline:
    trained = table.states.get("succeeded", 0)
    absent = {state: count for state, count in table.states.items() if state != "succeeded"}
    text = f"{trained} of {len(table.rows)} SAEs were trained"
    text += "".join(f", {count} {state}" for state, count in absent.items()) + "."
    standing = sum(comparison.differs is True for comparison in table.comparisons)
    if table.comparisons:
        text += f" {standing} of {len(table.comparisons)} differences stand after the correction for their number."
    return panels.Headline(text=text, tone="bad" if absent else "neutral")


def _means(table: GridTable) -> panels.Table:
    """The means; beside one that does not rest on all seeds of its row, a column with the number that it rests on."""
    labels, fewer = _labels(table), {name for name in table.figures if _rests_on_fewer(table, name)}
    columns = [panels.Column(label=label) for label in labels]
    columns += [panels.Column(label="seeds", format="integer")]
    rows: list[list[panels.Cell]] = [
        [*(getattr(summary, label) for label in labels), summary.seeds] for summary in table.summaries
    ]
    for name in table.figures:
        label = name.replace("_", " ")
        columns.append(panels.Column(label=label, format="number"))
        columns += [panels.Column(label=f"seeds with {label}", format="integer")] if name in fewer else []
        for summary, row in zip(table.summaries, rows, strict=True):
            estimate = summary.estimates.get(name)
            row.append(estimate)
            row += [estimate.n if estimate else 0] if name in fewer else []
    note = "With 95 % intervals over seeds. Each mean is over all seeds of its row unless a column beside it says less."
    return panels.Table(title="Means over seeds", note=note, columns=columns, rows=rows)


def _rests_on_fewer(table: GridTable, name: str) -> bool:
    """True where a mean of a figure leaves out seeds that were trained."""
    estimates = [(summary.estimates.get(name), summary.seeds) for summary in table.summaries]
    return any((estimate.n if estimate else 0) != seeds for estimate, seeds in estimates)


def _differences(table: GridTable) -> list[panels.AnyPanel]:
    """One panel of intervals for each figure that is compared."""
    shown: list[panels.AnyPanel] = []
    for name, comparisons in groupby(sorted(table.comparisons, key=lambda c: c.figure), lambda c: c.figure):
        rows = [
            panels.IntervalRow(
                label=" · ".join(filter(None, (c.condition, c.variant))) + (" *" if c.differs else ""),
                estimate=c.difference,
            )
            for c in comparisons
        ]
        note = (
            f"Against {table.comparisons[0].against}, paired by seed, with the 95 % intervals of the paired t-test; "
            "* where that test still rejects no difference at 5 % after Holm's correction."
        )
        title = f"Differences in {name.replace('_', ' ')}"
        zero = [panels.Reference(label="no difference", value=0.0)]
        shown.append(panels.Intervals(title=title, note=note, rows=rows, references=zero))
    return shown


def _cells(table: GridTable) -> panels.Table:
    figures = list(dict.fromkeys(name for row in table.rows for name in row.figures))
    labels = ["condition", "variant", "seed", "state", "reason"]
    columns = [panels.Column(label=label, format="integer" if label == "seed" else "text") for label in labels]
    columns += [panels.Column(label=name.replace("_", " "), format="number") for name in figures]
    rows: list[list[panels.Cell]] = [
        [*(getattr(row, label) for label in labels), *map(row.figures.get, figures)] for row in table.rows
    ]
    return panels.Table(title="Every SAE", columns=columns, rows=rows, folded=True)


def _labels(table: GridTable) -> list[str]:
    """Columns that tell the summaries apart; a grid of one unnamed condition needs none for it."""
    return [label for label in ("condition", "variant") if any(getattr(row, label) for row in table.summaries)]


def _ends(estimate: Estimate | None) -> list[float | None]:
    return [estimate.value, estimate.low, estimate.high, estimate.n] if estimate else [None] * 4
