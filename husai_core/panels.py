"""What there is to see of a result: a list of panels, which the terminal, the job's page, the HTML report, a notebook
and CSV render alike.

A kind's `present` turns its result into panels. A panel is plain data (it goes over HTTP as JSON) and says nothing of
fonts, colours or widths. Figures keep their full precision; who renders them rounds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from husai_core.estimate import Estimate

Tone = Literal["good", "bad", "unknown", "neutral"]
"""How a figure or a sentence is meant: `good` passes, `bad` fails, `unknown` is undecided."""
Format = Literal["text", "number", "integer", "share", "digest", "bytes", "seconds"]
"""How the cells of a column are written: `share` is a fraction shown in per cent, `digest` is shortened."""
Cell = str | bool | int | float | Estimate | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Panel(_Model):
    """What all panels have. `folded` ones are shown closed, for readers who want the details."""

    title: str = ""
    note: str = Field("", description="one or two sentences below the title: what is shown and how to read it")
    folded: bool = False


class Figure(_Model):
    """One named figure of a headline."""

    label: str
    value: Cell
    format: Format = "number"
    tone: Tone = "neutral"


class Headline(Panel):
    """The answer in one sentence, with the few figures that it rests on."""

    type: Literal["headline"] = "headline"
    text: str
    tone: Tone = "neutral"
    figures: list[Figure] = []


class Column(_Model):
    """A column of a table."""

    label: str
    format: Format = "text"
    digits: int | None = Field(None, description="decimals, where the format's own are not wanted")
    room: Literal["any", "wide", "page"] = Field(
        "any", description="`wide`: a terminal shows it only where it fits; `page`: no terminal does"
    )


class Table(Panel):
    """Rows of cells under named columns; an `Estimate` is written as value and interval."""

    type: Literal["table"] = "table"
    columns: list[Column]
    rows: list[list[Cell]]
    searchable: bool = Field(False, description="many rows: where scripts run, pages can sort and search them")

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.title!r} has a row that does not have {len(self.columns)} cells")
        return self


class IntervalRow(_Model):
    """One estimate with its interval, the units behind it, and the bar that it must clear, if there is one."""

    label: str
    estimate: Estimate
    points: list[tuple[str, float]] = Field([], description="single units, such as seeds or pairs, by label")
    bar: float | None = None
    op: Literal[">=", "<="] = ">="
    tone: Tone = "neutral"


class Reference(_Model):
    """A labelled value on an axis, such as a chance level or a threshold."""

    label: str
    value: float


class Intervals(Panel):
    """Estimates with their intervals over one axis, against nulls and bars."""

    type: Literal["intervals"] = "intervals"
    rows: list[IntervalRow]
    references: list[Reference] = []
    x_label: str = ""


class Series(_Model):
    """One line. Series of one label share one colour and one entry of the legend."""

    label: str
    points: list[tuple[float, float]]


class Lines(Panel):
    """Lines over two axes, either of which may be logarithmic."""

    type: Literal["lines"] = "lines"
    series: list[Series]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    references: list[Reference] = []


class ScatterPoint(_Model):
    """One point with its intervals. Points of one group share one colour and may be joined in their order."""

    label: str
    x: Estimate
    y: Estimate
    group: str = ""


class Scatter(Panel):
    """Points with intervals over two axes."""

    type: Literal["scatter"] = "scatter"
    points: list[ScatterPoint]
    x_label: str
    y_label: str
    log_x: bool = False
    joined: bool = Field(False, description="the points of a group are joined by a line")


class HeatMap(Panel):
    """A matrix as shaded cells with their values."""

    type: Literal["heat_map"] = "heat_map"
    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]
    low: float = 0.0
    high: float = 1.0
    low_label: str = ""
    high_label: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if [len(row) for row in self.values] != [len(self.columns)] * len(self.rows):
            raise ValueError(f"heat map {self.title!r} is no matrix of {len(self.rows)} by {len(self.columns)}")
        return self


class Bar(_Model):
    """One bar."""

    label: str
    value: float
    tone: Tone = "neutral"


class Bars(Panel):
    """Horizontal bars from zero."""

    type: Literal["bars"] = "bars"
    bars: list[Bar]
    x_label: str = ""
    references: list[Reference] = []


class Text(Panel):
    """Paragraphs of plain text."""

    type: Literal["text"] = "text"
    paragraphs: list[str]


class Context(_Model):
    """A stretch of text with the latent's activation at each token."""

    tokens: list[str]
    activations: list[float]

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if len(self.tokens) != len(self.activations):
            raise ValueError(f"a context has {len(self.tokens)} tokens, but {len(self.activations)} activations")
        return self


class FeatureCard(Panel):
    """One latent: its figures, where it fires, and what it writes."""

    type: Literal["feature_card"] = "feature_card"
    latent: int
    figures: list[Figure] = []
    contexts: list[Context] = []
    promoted: list[tuple[str, float]] = Field([], description="tokens and direct effects on their logits")
    suppressed: list[tuple[str, float]] = []


AnyPanel = Annotated[
    Headline | Table | Intervals | Lines | Scatter | HeatMap | Bars | Text | FeatureCard, Field(discriminator="type")
]
PANELS: TypeAdapter[list[AnyPanel]] = TypeAdapter(list[AnyPanel])
"""Reads panels from JSON and writes them."""


def plain(document: Mapping[str, Any], title: str = "") -> Sequence[AnyPanel]:
    """What can be shown of a result whose kind no longer knows it: single figures, estimates, and lists of records."""
    tables = [Table(title=title, columns=[Column(label="figure"), Column(label="value", format="number")], rows=[])]
    for name, value in document.items():
        label = name.replace("_", " ")
        if (cell := _cell(value)) is not None:
            tables[0].rows.append([label, cell])
        elif isinstance(value, Mapping) and (figures := [[key, _cell(figure)] for key, figure in value.items()]):
            columns = [Column(label="figure"), Column(label="value", format="number")]
            tables.append(Table(title=label, columns=columns, rows=figures, folded=len(figures) > PLAIN_ROWS))
        elif isinstance(value, Sequence) and value and all(isinstance(record, Mapping) for record in value):
            tables.append(_records(label, value))
    return [table for table in tables if table.rows]


PLAIN_ROWS = 12
"""Rows from which the table of an unknown result is folded."""


def _records(title: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """Records as rows, under the names of whatever can be written in one cell."""
    names = dict.fromkeys(name for record in records for name, value in record.items() if _cell(value) is not None)
    columns = [Column(label=name.replace("_", " "), format="number") for name in names]
    rows = [[_cell(record.get(name)) for name in names] for record in records]
    return Table(title=title, columns=columns, rows=rows if names else [], folded=True)


def _cell(value: object) -> Cell:
    """A value as a cell: text, a finite figure, or an estimate that is written as a mapping; else None."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, str | bool | int):
        return value
    if isinstance(value, Sequence) and value and all(isinstance(item, str | int) for item in value):
        return ", ".join(map(str, value))
    try:
        return Estimate.model_validate(value) if isinstance(value, Mapping) and "value" in value else None
    except ValidationError:
        return None


def to_csv(panel: AnyPanel) -> str:
    """The figures of a panel as comma-separated values with a header; an estimate takes the columns value, low, high.

    Figures keep their full precision; what is unknown is left empty.
    """
    return as_csv(_lines_of(panel))


FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
"""How a text begins that a spreadsheet takes for a formula."""


def as_csv(lines: Iterable[Sequence[object]]) -> str:
    """Lines of cells as comma-separated values, safe to open in a spreadsheet.

    A text that a spreadsheet would run as a formula (names, labels and tokens come from users) gets a leading
    apostrophe. Figures stay as they are.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_harmless, line) for line in lines)
    return text.getvalue()


def _harmless(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r", "\n")  # the csv module leaves a carriage return unquoted: it would begin a new line
    return f"'{text}" if text.startswith(FORMULA) else text


def _lines_of(panel: AnyPanel) -> Iterable[Sequence[object]]:
    """The rows of a panel's CSV, the header first."""
    match panel:
        case Headline():
            figures = [(figure.label, *_triple(figure.value)) for figure in panel.figures]
            return [("figure", "value", "low", "high"), ("text", panel.text, "", ""), *figures]
        case Table():
            return _table_lines(panel)
        case Intervals():
            return _interval_lines(panel)
        case Lines():
            steps = [(line.label, x, y) for line in panel.series for x, y in line.points]
            return [("series", panel.x_label, panel.y_label), *steps]
        case Scatter():
            names = [f"{label}{end}" for label in (panel.x_label, panel.y_label) for end in ("", " low", " high")]
            return [
                ("group", "label", *names),
                *((p.group, p.label, *_triple(p.x), *_triple(p.y)) for p in panel.points),
            ]
        case HeatMap():
            return [("", *panel.columns), *((name, *row) for name, row in zip(panel.rows, panel.values, strict=True))]
        case Bars():
            return [("label", panel.x_label or "value"), *((bar.label, bar.value) for bar in panel.bars)]
        case Text():
            return [("text",), *((paragraph,) for paragraph in panel.paragraphs)]
        case FeatureCard():
            return _card_lines(panel)


def _triple(value: Cell) -> tuple[Cell, Cell, Cell]:
    """Value, low and high of a cell."""
    return (value.value, value.low, value.high) if isinstance(value, Estimate) else (value, None, None)


def _table_lines(panel: Table) -> Iterable[Sequence[object]]:
    wide = [any(isinstance(row[i], Estimate) for row in panel.rows) for i in range(len(panel.columns))]
    header = list[str]()
    for column, three in zip(panel.columns, wide, strict=True):
        header += [f"{column.label}{end}".strip() for end in (("", " low", " high") if three else ("",))]
    yield header
    for row in panel.rows:
        cells = [_triple(cell)[: 3 if three else 1] for cell, three in zip(row, wide, strict=True)]
        yield [value for cell in cells for value in cell]


def _interval_lines(panel: Intervals) -> Iterable[Sequence[object]]:
    yield "label", "unit", "value", "low", "high", "needed", "bar"
    for row in panel.rows:
        bar = ("", "") if row.bar is None else (row.op, row.bar)
        yield row.label, "", *_triple(row.estimate), *bar
        yield from ((row.label, unit, value, "", "", "", "") for unit, value in row.points)
    yield from ((reference.label, "reference", reference.value, "", "", "", "") for reference in panel.references)


def _card_lines(panel: FeatureCard) -> Iterable[Sequence[object]]:
    yield "what", "label", "value", "low", "high"
    yield "latent", panel.latent, "", "", ""
    yield from (("figure", figure.label, *_triple(figure.value)) for figure in panel.figures)
    for place, context in enumerate(panel.contexts, 1):
        tokens = zip(context.tokens, context.activations, strict=True)
        yield from ((f"context {place}", token, value, "", "") for token, value in tokens)
    for name, effects in (("promoted", panel.promoted), ("suppressed", panel.suppressed)):
        yield from ((name, token, value, "", "") for token, value in effects)
