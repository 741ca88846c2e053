"""Panels as HTML: every text is escaped, nothing is scripted, and the same panels give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.panels import AnyPanel, Cell, Column, Figure, Tone
from husai_core.render import figures, numbers
from husai_core.render.style import STYLE
from husai_core.render.svg import tag

MARKS: dict[Tone, str] = {"good": "✓", "bad": "✕", "unknown": "?", "neutral": ""}
WORDS: dict[Tone, str] = {"good": "met", "bad": "not met", "unknown": "undecided", "neutral": ""}
LONG = 40
"""Letters from which a text cell is kept wide enough to read."""
NONE = Markup("")
META = Markup(
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
)


def page(title: str, body: Markup, style: str = "") -> str:
    """A whole page that needs nothing but itself."""
    head = tag("title", title) + tag("style", Markup(STYLE + style))
    return f"<!doctype html>\n{tag('html', tag('head', META, head), tag('body', body, class_='husai'), lang='en')}\n"


def fragment(shown: Sequence[AnyPanel], level: int = 3) -> Markup:
    """Panels one after the other, figures in two columns where there is room.

    Args:
        level: of the headings, 3 or 4.
    """
    return tag("div", *(one_panel(panel, level) for panel in shown), class_="panels")


def one_panel(panel: AnyPanel, level: int = 3) -> Markup:
    """A panel with its title and note; one that is folded can be opened."""
    if isinstance(panel, panels.Headline):
        return _headline(panel)
    style = "panel" if isinstance(panel, panels.Lines | panels.Scatter | panels.HeatMap | panels.Bars) else "panel wide"
    if isinstance(panel, panels.Intervals) and not _own_scales(panel):
        style = "panel"
    note = tag("p", panel.note, class_="note") if panel.note else NONE
    if panel.folded:
        summary = tag("summary", panel.title or "Details", _count(panel))
        return tag("details", summary, note, _body(panel), class_="panel wide")
    title = tag(f"h{level}", panel.title) if panel.title else NONE
    return tag("section", title, note, _body(panel), class_=style)


def _count(panel: AnyPanel) -> Markup:
    if not isinstance(panel, panels.Table):
        return NONE
    return tag("span", f" {len(panel.rows)} rows", class_="count")


def _body(panel: AnyPanel) -> Markup:
    match panel:
        case panels.Table():
            return table(panel)
        case panels.Text():
            return NONE.join(tag("p", paragraph) for paragraph in panel.paragraphs)
        case panels.FeatureCard():
            return _card(panel)
        case panels.Headline():
            return _headline(panel)
        case panels.Intervals() if _own_scales(panel):
            return gauges(panel)
    numbers_below = tag("details", tag("summary", "Numbers"), table(figures.as_table(panel)))
    return figures.draw(panel) + numbers_below


def _own_scales(panel: panels.Intervals) -> bool:
    """True when the rows have bars of their own, so that each is drawn on an axis of its own."""
    return len({(row.bar, row.op) for row in panel.rows if row.bar is not None}) > 1


def _headline(panel: panels.Headline) -> Markup:
    mark = tag("span", MARKS[panel.tone], class_="mark", aria_hidden="true") if MARKS[panel.tone] else NONE
    parts = [tag("p", mark, panel.text, class_=f"sentence {panel.tone}")]
    if panel.note:
        parts.append(tag("p", panel.note, class_="note"))
    if panel.figures:
        parts.append(tiles(panel.figures))
    title = tag("h3", panel.title) if panel.title else NONE
    return tag("section", title, tag("div", *parts, class_=f"headline {panel.tone}"), class_="panel wide")


def tiles(shown: Sequence[Figure]) -> Markup:
    """Named figures beside each other."""
    tones = [None if figure.tone == "neutral" else figure.tone for figure in shown]
    pairs = [
        tag("div", tag("dt", figure.label), tag("dd", _value(figure.value, figure.format), class_=tone))
        for figure, tone in zip(shown, tones, strict=True)
    ]
    return tag("dl", *pairs, class_="tiles")


def table(panel: panels.Table) -> Markup:
    """Rows under their columns, in a box of its own that scrolls where the page is too narrow.

    One that can be searched says so by `data-searchable`, and each of its figures in full by `data-value`.
    """
    aligned = [_is_figure(column, [row[i] for row in panel.rows]) for i, column in enumerate(panel.columns)]
    head = NONE
    if any(column.label for column in panel.columns):
        cells = [
            tag("th", column.label, scope="col", class_="figure" if right else None)
            for column, right in zip(panel.columns, aligned, strict=True)
        ]
        head = tag("thead", tag("tr", *cells))
    rows = [_row(panel.columns, row, aligned, panel.searchable) for row in panel.rows]
    style = "figures" if sum(aligned) >= len(aligned) - 1 else "text"
    marked = "" if panel.searchable else None
    shown = tag("table", head, tag("tbody", *rows), class_=style, data_searchable=marked)
    return scroll(shown, panel.title or "table")


def scroll(content: Markup, label: str) -> Markup:
    """A box that scrolls sideways, by keyboard too."""
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def _is_figure(column: Column, values: Sequence[Cell]) -> bool:
    texts = any(isinstance(value, str) for value in values)
    return column.format not in ("text", "digest") and not texts


def _row(columns: Sequence[Column], row: Sequence[Cell], aligned: Sequence[bool], with_values: bool) -> Markup:
    cells = []
    for i, (column, value, right) in enumerate(zip(columns, row, aligned, strict=False)):
        style = "figure" if right else "long" if isinstance(value, str) and len(value) > LONG else None
        name, scope = ("th", "row") if i == 0 else ("td", None)
        shown, sorted_by = _value(value, column.format, column.digits), _sorted_by(value) if with_values else None
        cells.append(tag(name, shown, scope=scope, class_=style, data_value=sorted_by))
    return tag("tr", *cells)


def _sorted_by(value: Cell) -> str | None:
    """A figure in full, by which its cell is sorted; None for a text and for what is unknown."""
    figure = value.value if isinstance(value, Estimate) else value
    return None if figure is None or isinstance(figure, str) else repr(float(figure))


def _value(value: Cell, form: panels.Format, digits: int | None = None) -> str | Markup:
    shown = numbers.cell(value, form, digits)
    if form == "digest" and isinstance(value, str):
        return tag("code", shown, title=value)
    if isinstance(value, Estimate) and " [" in shown:
        figure, _, ends = shown.partition(" [")
        return tag("span", figure, tag("span", f" [{ends}", class_="ends"), title=_basis(value))
    return shown


def _basis(estimate: Estimate) -> str:
    basis = f"{estimate.confidence:.0%} interval"
    if estimate.n:
        basis += f" over {estimate.n} {estimate.unit}{'' if estimate.n == 1 else 's'}"
    return f"{basis}, {estimate.method}" if estimate.method else basis


def gauges(panel: panels.Intervals) -> Markup:
    """Rows that each have a bar of their own: the figure, its interval on its own axis, and the verdict in words."""
    head = [tag("th", label, scope="col") for label in ("", "value, interval", "against the bar", "")]
    rows = [_gauge_row(row) for row in panel.rows]
    return scroll(tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows), class_="gauges"), panel.title)


def _gauge_row(row: panels.IntervalRow) -> Markup:
    need = NONE
    if row.bar is not None:
        need = tag("span", f"needs {'≥' if row.op == '>=' else '≤'} {numbers.compact(row.bar)}", class_="need")
    chip = tone_chip(row.tone) if WORDS[row.tone] else NONE
    plot = figures.gauge(row) if row.bar is not None else NONE
    return tag(
        "tr", tag("th", row.label, scope="row"), tag("td", _value(row.estimate, "number"), need), tag("td", plot),
        tag("td", chip),
    )  # fmt: skip


def tone_chip(tone: Tone, words: str = "") -> Markup:
    """A word with the colour and the sign of a tone."""
    mark = tag("span", f"{MARKS[tone]} ", aria_hidden="true") if MARKS[tone] else NONE
    return tag("span", mark, words or WORDS[tone], class_=f"chip {tone}")


def _card(panel: panels.FeatureCard) -> Markup:
    parts = [tiles([Figure(label="latent", value=panel.latent, format="integer"), *panel.figures])]
    highest = max((value for context in panel.contexts for value in context.activations), default=0.0)
    parts += [_context(context, highest) for context in panel.contexts]
    effects = [("promotes", panel.promoted), ("suppresses", panel.suppressed)]
    columns = [_effects(title, tokens) for title, tokens in effects if tokens]
    if columns:
        parts.append(tag("div", *columns, class_="tokens"))
    return tag("div", *parts, class_="card")


def _context(context: panels.Context, highest: float) -> Markup:
    marks = []
    for token, activation in zip(context.tokens, context.activations, strict=True):
        share = activation / highest if highest > 0 and math.isfinite(activation) else 0.0
        level = math.ceil(5 * min(1.0, max(0.0, share)))
        marks.append(tag("mark", token, class_=f"a{level}", title=numbers.number(activation)))
    return tag("p", *marks, class_="context")


def _effects(title: str, tokens: Sequence[tuple[str, float]]) -> Markup:
    columns = [Column(label=f"{title} token"), Column(label="effect on its logit", format="number")]
    return table(panels.Table(title=title, columns=columns, rows=[[token, effect] for token, effect in tokens]))
