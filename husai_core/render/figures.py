"""Panels as figures: intervals, lines, scatter, heat map, bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.panels import IntervalRow, Series
from husai_core.render.axis import Axis
from husai_core.render.numbers import compact, number
from husai_core.render.svg import (
    EM,
    HEIGHT,
    WIDTH,
    diamond,
    figure,
    legend,
    legend_lines,
    pixels,
    polyline,
    reference_room,
    references,
    shade,
    shorten,
    style_of,
    tag,
    text,
    whisker,
    x_axis,
    y_axis,
)

MOST_POINTS = 600
NUMBERS = 56.0
"""Room on the right for the figures of rows."""
LEFT = 54.0


def draw(panel: panels.Intervals | panels.Lines | panels.Scatter | panels.HeatMap | panels.Bars) -> Markup:
    """A panel as SVG."""
    match panel:
        case panels.Intervals():
            return intervals(panel)
        case panels.Lines():
            return lines(panel)
        case panels.Scatter():
            return scatter(panel)
        case panels.HeatMap():
            return heat_map(panel)
        case panels.Bars():
            return bars(panel)


def gauge(row: IntervalRow, width: float = 200) -> Markup:
    """One interval against its bar. The side that passes is shaded, the end of the interval that counts a diamond."""
    value, low, high = row.estimate.value, row.estimate.low, row.estimate.high
    bar = row.bar if row.bar is not None else 0.0
    axis = Axis.around([v for v in (value, low, high, bar, 0.0) if v is not None], 6, width - 6, pad=0.12)
    at, y = axis(bar), 13
    left, right = (at, width - 6) if row.op == ">=" else (6, at)
    marks = [
        tag("rect", class_="pass-side", x=left, y=2, width=max(0, right - left), height=2 * y - 4),
        tag("line", class_="axis", x1=6, x2=width - 6, y1=2 * y - 2, y2=2 * y - 2),
        tag("line", class_="threshold", x1=at, x2=at, y1=0, y2=2 * y + 1),
        text(min(max(at, 16), width - 16), 2 * y + 12, compact(bar), "tick", "middle"),
    ]
    if value is None:
        marks.append(text((at + (width if at <= width / 2 else 0)) / 2, y + 4, "no figure", "tick", "middle"))
    else:
        judged = low if row.op == ">=" else high
        marks += whisker(axis, y, low, high, row.tone)
        marks.append(tag("circle", class_=f"dot {row.tone}", cx=axis(value), cy=y, r=4))
        marks.append(
            tag("path", class_=f"judged {row.tone}", d=diamond(axis(value if judged is None else judged), y, 5))
        )
    sign = {">=": "at least", "<=": "at most"}[row.op]
    return figure(width, 2 * y + 16, f"{row.label}: {number(value)}, needed: {sign} {compact(bar)}", marks)


def _shown(row: IntervalRow) -> list[float]:
    estimate = row.estimate
    values = (estimate.value, estimate.low, estimate.high, row.bar, *(value for _, value in row.points))
    return [value for value in values if value is not None]


def intervals(panel: panels.Intervals) -> Markup:
    """Rows of single units and intervals over one axis; long labels stand above their rows."""
    longest = max((len(row.label) for row in panel.rows), default=0)
    above = longest > 24
    gutter = 6.0 if above else EM * longest + 14
    values = [value for row in panel.rows for value in _shown(row)] + [r.value for r in panel.references]
    axis = Axis.around(values, gutter, WIDTH - NUMBERS - 8)
    top = 8 + reference_room(axis, panel.references)
    heights = [28.0 + 16 * bool(row.points) + 16 * above for row in panel.rows]
    bottom = top + sum(heights)
    marks = [*x_axis(axis, top, bottom, panel.x_label), *references(axis, panel.references, top, bottom)]
    for i, row in enumerate(panel.rows):
        y = top + sum(heights[:i]) + 14
        if above:
            marks.append(text(0, y + 2, shorten(row.label, WIDTH - NUMBERS), "label", "start"))
            y += 16
        else:
            marks.append(text(gutter - 10, y + 4, row.label, "label", "end"))
        marks += _interval_row(axis, y, row, "s0" if row.tone == "neutral" else row.tone)
    return figure(WIDTH, bottom + (38 if panel.x_label else 24), panel.title or "intervals", marks)


def _interval_row(axis: Axis, y: float, row: IntervalRow, style: str) -> list[Markup]:
    estimate, marks = row.estimate, list[Markup]()
    if row.bar is not None:
        marks.append(tag("line", class_="threshold", x1=axis(row.bar), x2=axis(row.bar), y1=y - 9, y2=y + 9))
    marks += [*_swarm(axis, y + 16, row.points, style), *whisker(axis, y, estimate.low, estimate.high, style)]
    if estimate.value is not None:
        tip = tag("title", f"{row.label}: {describe(estimate)}")
        marks.append(tag("path", tip, class_=f"judged {style}", d=diamond(axis(estimate.value), y, 5)))
    marks.append(text(WIDTH - 2, y + 4, number(estimate.value), "figure", "end"))
    return marks


def describe(estimate: Estimate) -> str:
    """An estimate in words."""
    value = number(estimate.value)
    if estimate.low is None or estimate.high is None:
        return f"{value}, interval unknown"
    return f"{value}, {estimate.confidence:.0%} interval {number(estimate.low)} to {number(estimate.high)}"


def _swarm(axis: Axis, y: float, points: Sequence[tuple[str, float]], style: str) -> list[Markup]:
    """Single units, moved up or down in turn where they would hide each other."""
    marks, level, last = list[Markup](), 0, -math.inf
    for name, value in sorted(points, key=lambda point: point[1]):
        x = axis(value)
        level = (level + 1) % 3 if x - last < 6 else 0
        last = x
        tip = tag("title", f"{name}: {number(value, 4)}")
        marks.append(tag("circle", tip, class_=f"unit {style}", cx=x, cy=y + (0, -5, 5)[level], r=3))
    return marks


def lines(panel: panels.Lines) -> Markup:
    """Lines over two axes; values that a logarithmic axis cannot show are left out."""
    entries = {label: style_of(i) for i, label in enumerate(dict.fromkeys(series.label for series in panel.series))}
    kept = [(series, _showable(series, panel)) for series in panel.series]
    points = [point for _, some in kept for point in some]
    shown = list(entries.items()) if len(entries) > 1 or "" not in entries else []
    top, bottom, right = _room(shown), float(HEIGHT - 38), WIDTH - 10.0
    x = Axis.around((a for a, _ in points), LEFT, right, panel.log_x, pad=0.02)
    y = Axis.around([*(b for _, b in points), *(r.value for r in panel.references)], bottom, top, panel.log_y, pad=0.07)
    marks = [*legend(shown, 2, 9), *x_axis(x, top, bottom, panel.x_label), *y_axis(y, LEFT, right, panel.y_label)]
    for reference in panel.references:
        height = y(reference.value)
        marks.append(tag("line", class_="reference", x1=LEFT, x2=right, y1=height, y2=height))
        marks.append(text(right - 2, height - 4, reference.label, "tick", "end"))
    for series, some in kept:
        path = polyline([(x(a), y(b)) for a, b in thin(some)])
        marks.append(tag("path", tag("title", series.label), class_=f"line {entries[series.label]}", d=path))
        if len(some) == 1:
            marks.append(tag("circle", class_=f"unit {entries[series.label]}", cx=x(some[0][0]), cy=y(some[0][1]), r=3))
    return figure(WIDTH, HEIGHT, panel.title or panel.y_label or "lines", marks)


def _room(entries: Sequence[tuple[str, str]]) -> float:
    """Where a plot begins below its legend and the label of its upright axis."""
    return 22.0 + (16 * len(legend_lines(entries, 2)) if entries else 0)


def _showable(series: Series, panel: panels.Lines) -> list[tuple[float, float]]:
    return [
        (a, b)
        for a, b in series.points
        if math.isfinite(a) and math.isfinite(b) and (a > 0 or not panel.log_x) and (b > 0 or not panel.log_y)
    ]


def thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Points of a long line: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / MOST_POINTS)
    kept = [points[0]]
    for start in range(0, len(points), stretch):
        some = points[start : start + stretch]
        ends = {min(some, key=lambda point: point[1]), max(some, key=lambda point: point[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def scatter(panel: panels.Scatter) -> Markup:
    """Points with intervals over two axes; the points of a group may be joined."""
    groups = list(dict.fromkeys(point.group for point in panel.points))
    styles = {group: style_of(i) for i, group in enumerate(groups)}
    entries = [(group, styles[group]) for group in groups if group]
    top, bottom, right = _room(entries), float(HEIGHT - 38), WIDTH - 10.0
    points = [point for point in panel.points if point.x.value is not None and point.y.value is not None]
    x = Axis.around(_ends(point.x for point in points), LEFT, right, panel.log_x)
    y = Axis.around(_ends(point.y for point in points), bottom, top)
    marks = [*legend(entries, 2, 9), *x_axis(x, top, bottom, panel.x_label), *y_axis(y, LEFT, right, panel.y_label)]
    if panel.joined:
        for group in groups:
            path = polyline([(x(p.x.value or 0), y(p.y.value or 0)) for p in points if p.group == group])
            marks.append(tag("path", class_=f"line thin {styles[group]}", d=path))
    for point in points:
        marks += _scatter_point(point, x, y, styles[point.group])
    return figure(WIDTH, HEIGHT, panel.title or f"{panel.y_label} against {panel.x_label}", marks)


def _ends(estimates: Iterable[Estimate]) -> list[float]:
    return [v for e in estimates for v in (e.value, e.low, e.high) if v is not None]


def _scatter_point(point: panels.ScatterPoint, x: Axis, y: Axis, style: str) -> list[Markup]:
    across, up = x(point.x.value or 0), y(point.y.value or 0)
    marks = []
    if point.x.low is not None and point.x.high is not None:
        marks.append(tag("line", class_=f"whisker {style}", x1=x(point.x.low), x2=x(point.x.high), y1=up, y2=up))
    if point.y.low is not None and point.y.high is not None:
        ends = (y(point.y.low), y(point.y.high))
        marks.append(tag("line", class_=f"whisker {style}", x1=across, x2=across, y1=ends[0], y2=ends[1]))
    tip = tag("title", f"{point.label}: {describe(point.x)}; {describe(point.y)}")
    return [*marks, tag("circle", tip, class_=f"dot {style}", cx=across, cy=up, r=4)]


def heat_map(panel: panels.HeatMap) -> Markup:
    """Shaded cells with their values; `low` is blank, `high` is full colour."""
    gutter = 12 + EM * min(26, max((len(label) for label in panel.rows), default=0))
    width = min(56.0, (WIDTH - gutter - 4) / max(1, len(panel.columns)))
    longest = max((len(label) for label in panel.columns), default=0)
    turned = EM * longest > width
    top = min(130.0, EM * longest * 0.72 + 16) if turned else 22.0
    height, marks = max(13.0, min(width, 34.0)), list[Markup]()
    for j, label in enumerate(panel.columns):
        marks.append(_column_label(gutter + width * (j + 0.5), top - 7, shorten(label, 150), turned))
    for i, label in enumerate(panel.rows):
        marks.append(text(gutter - 8, top + height * (i + 0.5) + 4, shorten(label, gutter - 12), "label", "end"))
        for j, value in enumerate(panel.values[i]):
            marks += _cell(gutter + j * width, top + i * height, width, height, value, panel)
    bottom = top + len(panel.rows) * height + 14
    marks += _scale(gutter, bottom, panel)
    return figure(WIDTH, bottom + 28, panel.title or "heat map", marks)


def _column_label(x: float, y: float, label: str, turned: bool) -> Markup:
    if not turned:
        return text(x, y, label, "label", "middle")
    turn = f"rotate(-45 {pixels(x)} {pixels(y)})"
    return tag("text", label, class_="label", x=x, y=y, text_anchor="start", transform=turn)


def _cell(x: float, y: float, width: float, height: float, value: float | None, panel: panels.HeatMap) -> list[Markup]:
    if value is None or not math.isfinite(value):
        return [tag("rect", class_="blank", x=x + 0.5, y=y + 0.5, width=width - 1, height=height - 1)]
    extent = panel.high - panel.low
    share = min(1.0, max(0.0, (value - panel.low) / extent)) if extent > 0 else 0.0
    marks = [shade(x + 0.5, y + 0.5, width - 1, height - 1, share)]
    if width >= 30:
        style = "value dark" if share > 0.78 else "value middle" if share > 0.55 else "value"
        marks.append(text(x + width / 2, y + height / 2 + 4, number(value, 2), style, "middle"))
    return marks


def _scale(x: float, y: float, panel: panels.HeatMap) -> list[Markup]:
    """What the shades mean."""
    low, high = (
        f"{compact(v)} {name}".strip() for v, name in ((panel.low, panel.low_label), (panel.high, panel.high_label))
    )
    start = min(x, max(0.0, WIDTH - 132 - EM * len(high) - 12))
    steps = [shade(start + step * 12, y, 12, 8, step / 10) for step in range(11)]
    return [*steps, text(start, y + 22, low, "tick", "start"), text(start + 140, y + 8, high, "tick", "start")]


def bars(panel: panels.Bars) -> Markup:
    """Horizontal bars from zero."""
    gutter = min(190.0, EM * max((len(bar.label) for bar in panel.bars), default=0) + 14)
    values = [bar.value for bar in panel.bars if math.isfinite(bar.value)] + [r.value for r in panel.references]
    axis = Axis.around([0.0, *(values if any(values) else [1.0])], gutter, WIDTH - NUMBERS - 4, pad=0.0)
    top, pitch = 8 + reference_room(axis, panel.references), 26.0
    bottom = top + pitch * len(panel.bars)
    marks = x_axis(axis, top, bottom, panel.x_label)
    for i, bar in enumerate(panel.bars):
        y, ends = top + pitch * i, sorted((axis(0), axis(bar.value if math.isfinite(bar.value) else 0)))
        style = "s0" if bar.tone == "neutral" else bar.tone
        marks.append(text(gutter - 8, y + pitch / 2 + 4, shorten(bar.label, gutter - 10), "label", "end"))
        tip = tag("title", f"{bar.label}: {number(bar.value, 4)}")
        marks.append(
            tag("rect", tip, class_=f"bar {style}", x=ends[0], y=y + 5, width=ends[1] - ends[0], height=pitch - 10)
        )
        marks.append(text(WIDTH - 2, y + pitch / 2 + 4, number(bar.value), "figure", "end"))
    marks += references(axis, panel.references, top, bottom)
    return figure(WIDTH, bottom + (38 if panel.x_label else 24), panel.title or "bars", marks)


def as_table(panel: panels.Intervals | panels.Lines | panels.Scatter | panels.HeatMap | panels.Bars) -> panels.Table:
    """The numbers of a figure, for readers of tables."""
    columns, rows = _numbers(panel)
    return panels.Table(title=panel.title, columns=columns, rows=rows)


def _numbers(
    panel: panels.Intervals | panels.Lines | panels.Scatter | panels.HeatMap | panels.Bars,
) -> tuple[list[panels.Column], list[list[panels.Cell]]]:
    match panel:
        case panels.Intervals():
            wide = any(row.bar is not None for row in panel.rows)
            rows: list[list[panels.Cell]] = [
                [row.label, row.estimate, *([row.bar] if wide else [])] for row in panel.rows
            ]
            rows += [[reference.label, reference.value, *([None] if wide else [])] for reference in panel.references]
            return _columns(["", "value", *(["bar"] if wide else [])]), rows
        case panels.Lines():
            points = [(s.label, a, b) for s in panel.series for a, b in thin(s.points)]
            return _columns(["series", panel.x_label, panel.y_label]), [[*point] for point in points]
        case panels.Scatter():
            return _columns(["point", panel.x_label, panel.y_label]), [[p.label, p.x, p.y] for p in panel.points]
        case panels.HeatMap():
            cells = zip(panel.rows, panel.values, strict=False)
            return _columns(["", *panel.columns]), [[label, *values] for label, values in cells]
        case panels.Bars():
            return _columns(["", panel.x_label or "value"]), [[bar.label, bar.value] for bar in panel.bars]


def _columns(labels: Sequence[str]) -> list[panels.Column]:
    first, *others = labels
    return [panels.Column(label=first), *(panels.Column(label=label, format="number") for label in others)]
