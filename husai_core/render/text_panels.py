"""Panels (`husai_core.panels`) as plain text of any width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from husai_core import panels as p
from husai_core.render import numbers
from husai_core.render import text_charts as charts
from husai_core.render.text_layout import (
    GAP,
    Paint,
    cells,
    indented,
    pad,
    pairs,
    printable,
    printable_lines,
    table,
    unpainted,
    wrap,
)

MARKS = {"good": "✓ ", "bad": "✗ ", "unknown": "? ", "neutral": ""}
NAMES = frozenset({"title", "label", "group", "x_label", "y_label", "low_label", "high_label"})
MOST_SERIES, MOST_CONTEXTS, MOST_ROWS = 12, 6, 20
"""Lines, texts, and rows of a long table, that are shown before `--all`."""


def read(documents: Sequence[Mapping[str, Any]]) -> list[p.AnyPanel]:
    """Panels that a service sent, without control characters; what a newer version invented is said in words."""
    panels: list[p.AnyPanel] = []
    for document in map(_clean, documents):
        try:
            panels += p.PANELS.validate_python([document])
        except ValidationError:
            note = "This version of husai cannot show this; `husai report` can."
            panels.append(p.Text(title=str(document.get("title", "")), paragraphs=[note]))
    return panels


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, Mapping):
        return {name: _one_line(item) if name in NAMES else _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _one_line(value: Any) -> Any:
    """A name, whose line breaks and tabs would break a column."""
    return " ".join(printable(value).split()) if isinstance(value, str) else _clean(value)


def render(
    panels: Sequence[p.AnyPanel], width: int, *, everything: bool = False, paint: Paint = unpainted
) -> list[str]:
    """Lines of text for panels; folded ones are a line each unless `everything` is wanted. Headlines come first."""
    ordered = sorted(panels, key=lambda panel: panel.type != "headline")
    lines: list[str] = []
    for panel in ordered:
        if panel.folded and not everything:
            lines += ["", *wrap(_folded(panel), width)]
        else:
            lines += ["", *_panel(panel, width, everything, paint)]
    return lines[1:]


def cell(value: p.Cell, format: p.Format = "text", digits: int | None = None) -> str:
    """A cell of a table, or a figure, as the pages write it; nothing for a text that is absent."""
    if isinstance(value, str):
        return " ".join(numbers.cell(value, format).split())
    return "" if value is None and format == "text" else numbers.cell(value, format, digits)


def _folded(panel: p.AnyPanel) -> str:
    name = panel.title or panel.type.replace("_", " ")
    if isinstance(panel, p.Table):
        return f"{name}: {len(panel.rows)} more rows; --all shows them"
    return f"{name}: left out here; --all shows it"


def _panel(panel: p.AnyPanel, width: int, everything: bool, paint: Paint) -> list[str]:
    head = wrap(panel.title, width) if panel.title else []
    note = indented(wrap(panel.note, width - GAP)) if panel.note else []
    body = DRAWN[panel.type](panel, width - GAP, everything, paint)
    if isinstance(panel, p.Headline):
        return [*head, *body, *note]
    return [*head, *note, *indented(body)]


def _headline(panel: p.Headline, width: int, everything: bool, paint: Paint) -> list[str]:
    lines = wrap(MARKS[panel.tone] + panel.text, width)
    return lines + indented(_figures(panel.figures, width - GAP, paint))


def _figures(figures: Sequence[p.Figure], width: int, paint: Paint) -> list[str]:
    return pairs([(f.label, MARKS[f.tone] + cell(f.value, f.format)) for f in figures], width, paint)


def _table(panel: p.Table, width: int, everything: bool, paint: Paint) -> list[str]:
    shown = [(place, column) for place, column in enumerate(panel.columns) if column.room != "page"]
    most = MOST_ROWS if panel.searchable and not everything else len(panel.rows)
    rows = [[cell(row[place], column.format, column.digits) for place, column in shown] for row in panel.rows[:most]]
    droppable = [column.label for _, column in shown if column.room == "wide"]
    drawn = table([column.label for _, column in shown], rows, width, droppable=droppable, paint=paint)
    left_out = len(panel.rows) - len(rows)
    return [*drawn, *wrap(f"{left_out} more rows; --all shows them", width)] if left_out else drawn


def _intervals(panel: p.Intervals, width: int, everything: bool, paint: Paint) -> list[str]:
    texts = [_against_bar(row) for row in panel.rows]
    label = min(max((cells(row.label) for row in panel.rows), default=0), width // 3)
    room = width - label - max(map(cells, texts), default=0) - 2 * GAP
    beside = room >= 16
    ends = [end for row in panel.rows for end in (row.estimate.value, row.estimate.low, row.estimate.high, row.bar)]
    references = [reference.value for reference in panel.references]
    points = [value for row in panel.rows for _, value in row.points]
    axis = charts.Axis([*ends, *references, *points], min(48, room if beside else width))
    lines: list[str] = []
    for row, text in zip(panel.rows, texts, strict=True):
        e = row.estimate
        drawing = charts.interval(axis, e.value, e.low, e.high, row.bar, references, [value for _, value in row.points])
        if beside:
            names = wrap(row.label, label)
            lines.append(f"{pad(names[0], label)}  {drawing}  {paint(text, row.tone)}".rstrip())
            lines += names[1:]
        else:
            lines += [*wrap(row.label, width), drawing.rstrip(), *indented(wrap(text, width - GAP))]
    scale = axis.ends(numbers.compact(axis.low), numbers.compact(axis.high))
    lines.append(" " * (label + GAP if beside else 0) + scale)
    legend = [f"┊ {_reference(reference)}" for reference in panel.references]
    if points:
        legend.append("· single units")
    if any(row.bar is not None for row in panel.rows):
        legend.append("┃ the bar that must be cleared")
    return lines + wrap(", ".join([*filter(None, [panel.x_label]), *legend]), width)


def _against_bar(row: p.IntervalRow) -> str:
    text = cell(row.estimate)
    if row.estimate.low is None or row.estimate.high is None:
        text += " (interval unknown)"
    if row.bar is not None:
        text += f", needed {'≥' if row.op == '>=' else '≤'} {numbers.plain(row.bar)}"
    return MARKS[row.tone] + text


def _lines(panel: p.Lines, width: int, everything: bool, paint: Paint) -> list[str]:
    series = [s for s in panel.series if s.points]
    shown = series if everything else series[:MOST_SERIES]
    rows = []
    for s in shown:
        first, last = s.points[0], s.points[-1]
        drawing = charts.sparkline(s.points, max(8, min(40, width // 3)), panel.log_x, panel.log_y)
        rows.append([s.label, drawing, f"{numbers.plain(first[1])} → {numbers.plain(last[1])}"])
    xs = [x for s in shown for x, _ in s.points]
    lines = table(["", panel.y_label, "first → last"], rows, width, paint=paint) if rows else ["no points yet"]
    if xs:
        lines += wrap(f"{panel.x_label} from {numbers.compact(min(xs))} to {numbers.compact(max(xs))}", width)
    if panel.references:
        lines += wrap(_references(panel.references), width)
    if len(series) > len(shown):
        lines.append(f"{len(series) - len(shown)} more lines; --all shows them")
    return lines


def _scatter(panel: p.Scatter, width: int, everything: bool, paint: Paint) -> list[str]:
    grouped = any(point.group for point in panel.points)
    columns = [*(["group"] if grouped else []), "point", panel.x_label, panel.y_label]
    rows = [
        [*([point.group] if grouped else []), point.label, cell(point.x), cell(point.y)]
        for point in sorted(panel.points, key=lambda point: point.group)
    ]
    return table(columns, rows, width, paint=paint)


def _heat_map(panel: p.HeatMap, width: int, everything: bool, paint: Paint) -> list[str]:
    """Figures instead of shades; columns that do not fit beside each other follow below."""
    values = [["" if value is None else numbers.number(value, 2) for value in row] for row in panel.values]
    label = min(max(map(cells, panel.rows), default=0), width // 3)
    columns = list(panel.columns)
    legend: list[str] = []
    if any(cells(name) > 8 for name in columns):
        legend = [f"{position} = {name}" for position, name in enumerate(columns)]
        columns = [str(position) for position in range(len(columns))]
    column = max([4, *map(cells, columns), *(cells(value) for row in values for value in row)])
    across = max(1, (width - label) // (column + GAP))
    lines: list[str] = []
    for start in range(0, len(columns), across):
        span = slice(start, start + across)
        lines.append(pad("", label) + "".join("  " + pad(name, column, right=True) for name in columns[span]))
        for name, row in zip(panel.rows, values, strict=True):
            names = wrap(name, label)
            figures = "".join("  " + pad(value, column, right=True) for value in row[span])
            lines += [(pad(names[0], label) + figures).rstrip(), *names[1:]]
    ends = [
        f"{numbers.compact(low)}: {text}"
        for low, text in ((panel.low, panel.low_label), (panel.high, panel.high_label))
        if text
    ]
    return lines + (wrap(", ".join(legend), width) if legend else []) + (wrap(", ".join(ends), width) if ends else [])


def _bars(panel: p.Bars, width: int, everything: bool, paint: Paint) -> list[str]:
    label = min(max((cells(bar.label) for bar in panel.bars), default=0), width // 2)
    figures = [numbers.plain(bar.value) for bar in panel.bars]
    room = max(4, min(40, width - label - max(map(cells, figures), default=0) - 2 * GAP))
    largest = max((abs(bar.value) for bar in panel.bars), default=0.0)
    lines: list[str] = []
    for bar, figure in zip(panel.bars, figures, strict=True):
        names = wrap(bar.label, label)
        drawing = charts.bar(bar.value, largest, room)
        lines += [f"{pad(names[0], label)}  {drawing} {figure}".rstrip(), *names[1:]]
    text = ", ".join(filter(None, [panel.x_label, _references(panel.references)]))
    return lines + (wrap(text, width) if text else [])


def _references(references: Sequence[p.Reference]) -> str:
    return ", ".join(map(_reference, references))


def _reference(reference: p.Reference) -> str:
    """A reference's label with its value, unless that is the label."""
    is_value = reference.label.removeprefix("+") == numbers.compact(reference.value)
    return reference.label if is_value else f"{reference.label} {numbers.plain(reference.value)}"


def _text(panel: p.Text, width: int, everything: bool, paint: Paint) -> list[str]:
    lines: list[str] = []
    for paragraph in panel.paragraphs:
        lines += ["", *wrap(paragraph, width)]
    return lines[1:]


def _feature_card(panel: p.FeatureCard, width: int, everything: bool, paint: Paint) -> list[str]:
    lines = [f"latent {panel.latent}", *_figures(panel.figures, width, paint)]
    shown = panel.contexts if everything else panel.contexts[:MOST_CONTEXTS]
    for context in shown:
        lines += ["", *wrap(_marked(context), width)]
    if len(panel.contexts) > len(shown):
        lines += ["", f"{len(panel.contexts) - len(shown)} more texts; --all shows them"]
    effects = (("promoted", panel.promoted), ("suppressed", panel.suppressed))
    words = [
        (name, ", ".join(f"{token!r} {numbers.signed(effect)}" for token, effect in tokens)) for name, tokens in effects
    ]
    filled = [pair for pair in words if pair[1]]
    return lines + (["", *pairs(filled, width)] if filled else [])


def _marked(context: p.Context) -> str:
    """A text whose active tokens stand in brackets, the strongest with its activation."""
    largest = max(context.activations, default=0.0)
    pieces = []
    for token, activation in zip(context.tokens, context.activations, strict=True):
        if activation <= 0:
            pieces.append(token)
        else:
            lead = token[: len(token) - len(token.lstrip())]
            strength = f":{numbers.number(activation, 2)}" if activation == largest else ""
            pieces.append(f"{lead}[{token.strip()}{strength}]")
    return " ".join("".join(pieces).split())


Draw = Callable[[Any, int, bool, Paint], list[str]]
DRAWN: dict[str, Draw] = {
    "headline": _headline,
    "table": _table,
    "intervals": _intervals,
    "lines": _lines,
    "scatter": _scatter,
    "heat_map": _heat_map,
    "bars": _bars,
    "text": _text,
    "feature_card": _feature_card,
}
