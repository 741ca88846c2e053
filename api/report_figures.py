"""Plots with the table of their numbers, as reports show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from api import svg
from api.report_data import Json, real
from api.svg import Row, Series, number

MOST_ROWS = 24
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column names the row; the others are numbers unless `text`."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text: bool = False


@dataclass(frozen=True)
class Figure:
    """A plot, what it shows, and its numbers."""

    svg: Markup
    caption: str
    data: Table
    note: str = ""
    tall: bool = False


def interval(estimate: Json, space: str = NO_BREAK) -> str:
    """A figure with its interval in words, such as `0.842 [0.831, 0.853]`; `space` parts the two."""
    value, low, high = (real(estimate.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return "unknown"
    known = low is not None or high is not None
    ends = f"[{number(low)},{NO_BREAK}{number(high)}]" if known else "[interval unknown]"
    return f"{number(value)}{space}{ends}"


def thin(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """At most `MOST_ROWS` rows, evenly spaced, with the first and the last."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (MOST_ROWS - 1))] for i in range(MOST_ROWS)]


def row(label: str, estimate: Json, style: str = "s0", points: Sequence[tuple[str, float]] = ()) -> Row:
    """An estimate as a row of a dot plot."""
    value, low, high = (real(estimate.get(key)) for key in ("value", "low", "high"))
    return Row(label, value, low, high, points, style)


def heat(matrix: Sequence[Sequence[float | None]], seeds: Sequence[str], title: str, chance: float) -> Figure | None:
    """A pair matrix, shaded from chance level to 1."""
    if not matrix:
        return None
    plot = svg.heatmap(matrix, seeds, title, low=chance, high=1, names=("Gaussian chance", "identical"))
    cells = [[seeds[i], *("–" if i == j else number(v, 4) for j, v in enumerate(row))] for i, row in enumerate(matrix)]
    return Figure(plot, title, Table(["seed", *seeds], cells), "Rows and columns are seeds.", tall=True)


def dots(
    rows: Sequence[Row],
    title: str,
    label: str,
    references: Sequence[tuple[float, str]] = (),
    include: Sequence[float] = (),
) -> Figure | None:
    """Rows of a dot plot that have a value, or nothing where none has."""
    rows = [row for row in rows if row.value is not None]
    if not rows:
        return None
    cells = [[row.label, *(number(v, 4) for v in (row.value, row.low, row.high))] for row in rows]
    cells += [[f"{row.label}, {name}", number(value, 4), "", ""] for row in rows for name, value in row.points]
    plot = svg.dots(rows, title, x_label=label, references=references, include=include)
    return Figure(plot, title, Table(["", "value", "low", "high"], cells))


def bars(title: str, label: str, values: Sequence[tuple[str, float]], note: str = "") -> Figure | None:
    """Bars of shares, over an axis that ends at 1."""
    if not values:
        return None
    plot = svg.bars([(name, value, "s0") for name, value in values], title, high=1, x_label=label)
    return Figure(plot, title, Table(["", label], [[name, number(value, 4)] for name, value in values]), note)


def lines(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    references: Sequence[tuple[float, str]] = (),
    names: Sequence[str] = (),
) -> Figure | None:
    """A line chart, or nothing where no series has two points."""
    drawn = [one for one in series if len(one.points) > 1]
    if not drawn:
        return None
    plot = svg.lines(drawn, title, x_label=x_label, y_label=y_label, log_x=log_x, log_y=log_y, references=references)
    by_x: dict[float, dict[int, float]] = {}
    for i, one in enumerate(series):
        for x, y in one.points:
            by_x.setdefault(x, {})[i] = y
    rows = [[f"{x:.10g}", *(number(ys.get(i), 4) for i in range(len(series)))] for x, ys in sorted(by_x.items())]
    head = [x_label, *(names or [one.label for one in series])]
    caption = f"{len(thin(rows))} of {len(rows)} points" if len(rows) > MOST_ROWS else ""
    return Figure(plot, title, Table(head, thin(rows), caption))


def curve_of(points: Sequence[Json], x: str, y: str) -> list[tuple[float, float]]:
    """The pairs of two figures of each point, where both are known."""
    pairs = [(real(point.get(x)), real(point.get(y))) for point in points]
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def error_curve(points: Sequence[Json], i: int) -> list[tuple[float, float]]:
    """(tokens, held-out error) of the i-th member."""
    errors = [(real(p.get("tokens")), p.get("normalised_mse")) for p in points]
    pairs = [(t, real(e[i])) for t, e in errors if t is not None and isinstance(e, list) and i < len(e)]
    return [(t, e) for t, e in pairs if e is not None]
