"""What there is to see of a result: a list of panels, which the terminal, the job's page, the HTML report, a notebook
and CSV render alike.

A kind's `present` turns its result into panels. A panel is plain data (it goes over HTTP as JSON) and says nothing of
fonts, colours or widths. Figures keep their full precision; who renders them rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from husai_core.estimate import Estimate

Tone = Literal["good", "bad", "unknown", "neutral"]
"""How a figure or a sentence is meant: `good` passes, `bad` fails, `unknown` is not settled."""
Format = Literal["text", "number", "integer", "share", "digest", "bytes", "seconds"]
"""How the cells of a column are written: `share` is a fraction shown in per cent, `digest` is shortened."""
Cell = str | bool | int | float | Estimate | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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


class Table(Panel):
    """Rows of cells under named columns; an `Estimate` is written as value and interval."""

    type: Literal["table"] = "table"
    columns: list[Column]
    rows: list[list[Cell]]


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


def plain(document: dict[str, object], title: str = "") -> Sequence[AnyPanel]:
    """The single figures of a result whose kind no longer knows it, as a table of names and values."""
    rows: list[list[Cell]] = [
        [name, value] for name, value in document.items() if isinstance(value, str | bool | int | float)
    ]
    return [Table(title=title, columns=[Column(label="figure"), Column(label="value", format="number")], rows=rows)]
