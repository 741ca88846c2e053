"""Panels and words that several kinds show alike. Light: no torch, no scipy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Literal

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.render import numbers
from husai_core.stability.result_tables import Matrix, Member

MINUS = "\N{MINUS SIGN}"
ROUNDING = 1e-12
"""Below this a figure is nothing but the rounding of zero."""
LABELS = {"l0": "L0", "pwmcc": "PWMCC", "n_rows": "rows", "d_model": "width", "leaks_label": "input shows the answer"}


def label(name: str) -> str:
    """A figure's name in words."""
    return LABELS.get(name, name.replace("_", " "))


def number(value: float | None, digits: int = 3) -> str:
    """A figure in few significant digits, without an exponent where it is readable without one."""
    if value is None or not isfinite(value):
        return "unknown"
    if abs(value) < ROUNDING:
        return "0"
    whole = abs(value) >= 1000 or value == int(value)
    return (f"{value:.0f}" if whole and abs(value) < 1e15 else f"{value:.{digits}g}").replace("-", MINUS)


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "unknown" if share is None or not isfinite(share) else numbers.cell(share, "share", 2)


def interval(estimate: Estimate | None) -> str:
    """A figure with its interval, such as `0.842 [0.831, 0.853]`, written as in the tables beside it."""
    if estimate is None or estimate.value is None:
        return "unknown"
    known = estimate.low is not None and estimate.high is not None
    return numbers.interval(estimate) if known else f"{numbers.interval(estimate)} (interval unknown)"


def yes(value: bool | None) -> str:
    """A truth value as a word."""
    return "unknown" if value is None else "yes" if value else "no"


def finite(value: float | None) -> float | None:
    """The value, or None where it is no number."""
    return value if value is not None and isfinite(value) else None


def value_only(value: float | None, n: int = 0) -> Estimate:
    """A figure without an interval."""
    return Estimate(value=finite(value), n=n)


def mean(values: Iterable[float | None]) -> Estimate:
    """The mean of the known values, without an interval."""
    known = [value for value in values if value is not None and isfinite(value)]
    return value_only(sum(known) / len(known) if known else None, len(known))


def difference(a: Estimate | None, b: Estimate | None) -> Estimate | None:
    """The difference of two values, without an interval, which their own intervals do not give."""
    if a is None or b is None or a.value is None or b.value is None:
        return None
    return value_only(a.value - b.value, min(a.n, b.n))


def side(estimate: Estimate | None) -> Literal["above", "below", "undecided"]:
    """On which side of 0 the whole interval lies."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "undecided"
    return "above" if estimate.low > 0 else "below" if estimate.high < 0 else "undecided"


def interval_row(
    label: str, estimate: Estimate | None, points: Sequence[tuple[str, float]] = ()
) -> list[panels.IntervalRow]:
    """A row of an interval plot, or none where there is no value."""
    if estimate is None or estimate.value is None:
        return []
    known = [(name, value) for name, value in points if isfinite(value)]
    return [panels.IntervalRow(label=label, estimate=estimate, points=known)]


def pair_points(matrix: Matrix, seeds: Sequence[int]) -> list[tuple[str, float]]:
    """The known values below the diagonal of a pair matrix, with the seeds that each is of."""
    cells = [(seeds[j], seeds[i], matrix[i][j]) for i in range(len(matrix)) for j in range(i)]
    return [(f"seeds {a} and {b}", value) for a, b, value in cells if value is not None and isfinite(value)]


def pair_map(matrix: Matrix, seeds: Sequence[int], title: str, low: Estimate | None, note: str = "") -> panels.HeatMap:
    """A pair matrix, shaded from chance level to 1."""
    names = [f"seed {seed}" for seed in seeds]
    chance = low.value if low and low.value is not None else 0.0
    values = [[None if i == j else finite(value) for j, value in enumerate(row)] for i, row in enumerate(matrix)]
    return panels.HeatMap(
        title=title,
        note=note,
        rows=names,
        columns=names,
        values=values,
        low=chance,
        high=1.0,
        low_label="Gaussian chance" if low else "",
        high_label="identical",
    )


MEMBER_COLUMNS = [
    panels.Column(label="seed", format="integer"),
    panels.Column(label="EV", digits=4, format="number"),
    panels.Column(label="NMSE", digits=4, format="number"),
    panels.Column(label="L0", digits=1, format="number"),
    panels.Column(label="dead", format="share"),
    panels.Column(label="drift", digits=3, format="number"),
    panels.Column(label="conv."),
]
MEMBERS_NOTE = (
    "On rows that neither training nor selection saw. EV: explained variance; NMSE: squared error as a "
    "share of the squares; L0: active latents per row; dead: share of latents that never fire; drift: mean cosine "
    "between a decoder row and its start, 1 is no change; conv.: the training had converged."
)


def member_cells(member: Member) -> list[panels.Cell]:
    """One SAE's row under `MEMBER_COLUMNS`."""
    figures = (member.explained_variance, member.normalised_mse, member.l0, member.dead_fraction)
    return [member.seed, *map(finite, figures), finite(member.drift_from_init), yes(member.converged)]


def members_table(groups: Mapping[str, Sequence[Member]], title: str) -> list[panels.AnyPanel]:
    """The SAEs of some groups, one a row, folded; nothing where there is none."""
    rows = [[name, *member_cells(member)] for name, members in groups.items() for member in members]
    columns = [panels.Column(label="group"), *MEMBER_COLUMNS]
    if len(groups) == 1:
        rows, columns = [row[1:] for row in rows], MEMBER_COLUMNS
    table = panels.Table(title=title, note=MEMBERS_NOTE, folded=True, columns=columns, rows=rows)
    return [table] if rows else []
