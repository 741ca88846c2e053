"""Static figures as SVG text: no script, no library, colours by class so that a page's style sheet decides them.

Classes: `s0` to `s4` are series, `null` is a chance level, `pass`, `fail` and `inconclusive` are verdicts. Every figure
is an image with a text alternative, and its marks carry their numbers as tooltips. Widths are in pixels at scale 1; a
figure scales to its container.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 250
EM = 6.9  # generous advance of a character of the 12 px labels
ATTRIBUTES = {"class_": "class"}


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: fixed decimals, a true minus sign, a dash for what is unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def compact(value: float) -> str:
    """A short axis label: 0.25, 30, 2 M, 1e-4."""
    size = abs(value)
    for factor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if size >= factor * 0.9995:
            return f"{value / factor:.3g}{suffix}".replace("-", "−")
    text = f"{value:.0e}".replace("e-0", "e-") if 0 < size < 1e-3 else f"{value:.4g}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Axis:
    """A map from data to pixels: `low` falls on `start`, `high` on `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, log: bool = False, pad: float = 0.06) -> Axis:
        """An axis that shows all finite values, with a margin."""
        kept = [v for v in values if math.isfinite(v) and (v > 1e-200 or not log)] or ([1.0] if log else [0.0])
        low, high = (math.log10(min(kept)), math.log10(max(kept))) if log else (min(kept), max(kept))
        size, spread = max(abs(low), abs(high)), high - low
        margin = spread * pad if spread > 1e-9 * size + 1e-300 else max(size * 0.1, 0.1)
        low, high = low - margin, high + margin
        return cls(10**low, 10**high, start, end, True) if log else cls(low, high, start, end)

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are clamped to the ends."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values inside the axis; on a logarithmic one, decades (with 2 and 5 where there are fewer than 3)."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            whole = [10.0**e for e in decades if self.low <= 10.0**e <= self.high]
            fine = [m * 10.0**e for e in decades for m in (1, 2, 5) if self.low <= m * 10.0**e <= self.high]
            return whole[:: math.ceil(len(whole) / about)] if len(whole) > 2 else fine or [self.low, self.high]
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Row:
    """One row of a dot plot: single units as points, their estimate with its interval, or only one of the two."""

    label: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    points: Sequence[tuple[str, float]] = ()
    style: str = "s0"


@dataclass(frozen=True)
class Series:
    """One line of a chart. Series of one label share one entry of the legend."""

    label: str
    points: Sequence[tuple[float, float]]
    style: str = "s0"


def gauge(
    value: float | None,
    low: float | None,
    high: float | None,
    threshold: float,
    *,
    op: str,
    bound: str,
    verdict: str,
    title: str,
    width: float = 200,
) -> Markup:
    """The interval of one rule against its threshold. The side that passes is shaded, the judged end is a diamond."""
    axis = Axis.around([v for v in (value, low, high, threshold, 0.0) if v is not None], 6, width - 6, pad=0.12)
    at, y = axis(threshold), 13
    side = (at, width - 6 - at) if op == ">=" else (6, at - 6)
    marks = [
        tag("rect", class_="pass-side", x=side[0], y=2, width=max(0, side[1]), height=2 * y - 4),
        tag("line", class_="axis", x1=6, x2=width - 6, y1=2 * y - 2, y2=2 * y - 2),
        tag("line", class_="threshold", x1=at, x2=at, y1=0, y2=2 * y + 1),
        _text(min(max(at, 16), width - 16), 2 * y + 12, compact(threshold), "tick", "middle"),
    ]
    if value is None:
        marks.append(_text((at + (width if at <= width / 2 else 0)) / 2, y + 4, "no figure", "tick", "middle"))
    else:
        judged = {"low": low, "high": high}.get(bound, value)
        marks += _interval(axis, y, low, high, verdict)
        marks.append(tag("circle", class_=f"dot {verdict}", cx=axis(value), cy=y, r=4))
        if judged is not None:
            marks.append(tag("path", class_=f"judged {verdict}", d=_diamond(axis(judged), y, 5)))
    return figure(width, 2 * y + 16, title, marks)


def dots(
    rows: Sequence[Row],
    title: str,
    *,
    x_label: str = "",
    references: Sequence[tuple[float, str]] = (),
    include: Sequence[float] = (),
) -> Markup:
    """Rows of points and intervals over one axis: a forest plot, a strip plot of nulls against what was observed.

    Args:
        references: (value, label) of dashed vertical lines, such as thresholds and chance levels.
        include: further values that the axis must show.
    """
    gutter = min(170.0, EM * max((len(row.label) for row in rows), default=0) + 12)
    shown = [v for row in rows for v in (row.value, row.low, row.high, *(p for _, p in row.points)) if v is not None]
    numbers = 52.0
    axis = Axis.around([*shown, *include, *(v for v, _ in references)], gutter, WIDTH - numbers - 8)
    top = 8.0 + 15 * bool(references)
    heights = [44.0 if row.points else 28.0 for row in rows]
    bottom = top + sum(heights)
    marks = [*_x_axis(axis, top, bottom, x_label), *_references(axis, references, top, bottom)]
    for i, row in enumerate(rows):
        y = top + sum(heights[:i]) + 14
        marks.append(_text(gutter - 10, y + 4, _shorten(row.label, gutter), "label", "end"))
        marks += [*_swarm(axis, y + 17, row), *_interval(axis, y, row.low, row.high, row.style)]
        if row.value is not None:
            mark = tag("title", f"{row.label}: {number(row.value)}")
            marks.append(tag("path", mark, class_=f"judged {row.style}", d=_diamond(axis(row.value), y, 5)))
        marks.append(_text(WIDTH - 2, y + 4, number(row.value), "figure", "end"))
    return figure(WIDTH, bottom + (38 if x_label else 24), title, marks)


def heatmap(
    matrix: Sequence[Sequence[float | None]],
    labels: Sequence[str],
    title: str,
    *,
    low: float = 0.0,
    high: float = 1.0,
    names: tuple[str, str] = ("", ""),
) -> Markup:
    """A square matrix as shaded cells with their values; `low` is blank, `high` is full colour.

    Args:
        labels: of rows and columns alike.
        names: what the two ends of the colour scale mean.
    """
    gutter, n = 12 + EM * max((len(label) for label in labels), default=0), max(1, len(labels))
    cell = min(56.0, (WIDTH - gutter - 4) / n)
    top, marks = 22.0, list[Markup]()
    for i, label in enumerate(labels):
        marks.append(_text(gutter - 8, top + cell * (i + 0.5) + 4, label, "label", "end"))
        marks.append(_text(gutter + cell * (i + 0.5), top - 7, label, "label", "middle"))
        for j, value in enumerate(matrix[i]):
            marks += _cell(gutter + j * cell, top + i * cell, cell, i == j, value, (low, high))
    bottom = top + n * cell + 16
    marks += [_shade(gutter + step * 12, bottom, 12, 8, step / 10) for step in range(11)]
    for x, anchor, value, name in ((gutter, "start", low, names[0]), (gutter + 132, "start", high, names[1])):
        at = bottom + 22 if value == low else bottom + 8
        text = f"{number(value, 2)} {name}".strip()
        marks.append(_text(x + (8 if value == high else 0), at, text, "tick", anchor))
    return figure(WIDTH, bottom + 28, title, marks)


def lines(
    series: Sequence[Series],
    title: str,
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    references: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Lines over two axes, either of which may be logarithmic; values that such an axis cannot show are left out.

    `references` are (value, label) of dashed horizontal lines.
    """
    points = [p for one in series for p in one.points if (p[0] > 0 or not log_x) and (p[1] > 0 or not log_y)]
    legend = list({one.label: one.style for one in series}.items())
    top, left, bottom = 26.0 + 16 * (len(_legend_lines(legend)) - 1), 52.0, HEIGHT - 38
    x = Axis.around((p[0] for p in points), left, WIDTH - 10, log_x, pad=0.02)
    y = Axis.around([*(p[1] for p in points), *(v for v, _ in references)], bottom, top, log_y, pad=0.07)
    marks = [*_legend(legend), *_x_axis(x, top, bottom, x_label), *_y_axis(y, left, WIDTH - 10, y_label)]
    for value, label in references:
        marks.append(tag("line", class_="reference", x1=left, x2=WIDTH - 10, y1=y(value), y2=y(value)))
        marks.append(_text(WIDTH - 12, y(value) - 4, label, "tick", "end"))
    for one in series:
        kept = [(x(a), y(b)) for a, b in one.points if (a > 0 or not log_x) and (b > 0 or not log_y)]
        marks.append(tag("path", class_=f"line {one.style}", d=_polyline(kept)))
    return figure(WIDTH, HEIGHT, title, marks)


def bars(
    rows: Sequence[tuple[str, float, str]],
    title: str,
    *,
    x_label: str = "",
    high: float | None = None,
    references: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Horizontal bars from zero of (label, value, style); `high` fixes the end of the axis."""
    gutter = min(190.0, EM * max((len(label) for label, _, _ in rows), default=0) + 12)
    low = min([0.0, *(value for _, value, _ in rows)])
    top_value = high if high is not None else max([0.0, *(value for _, value, _ in rows)]) or 1.0
    axis = Axis(low, top_value, gutter, WIDTH - 60)
    top, pitch = 8.0 + 15 * bool(references), 26.0
    bottom = top + pitch * len(rows)
    marks = _x_axis(axis, top, bottom, x_label)
    for i, (label, value, style) in enumerate(rows):
        y, ends = top + pitch * i, sorted((axis(0), axis(value)))
        marks.append(_text(gutter - 8, y + pitch / 2 + 4, _shorten(label, gutter), "label", "end"))
        marks.append(tag("rect", class_=f"bar {style}", x=ends[0], y=y + 5, width=ends[1] - ends[0], height=pitch - 10))
        marks.append(_text(WIDTH - 2, y + pitch / 2 + 4, number(value), "figure", "end"))
    marks += _references(axis, references, top, bottom)
    return figure(WIDTH, bottom + (38 if x_label else 24), title, marks)


def figure(width: float, height: float, title: str, marks: Iterable[Markup]) -> Markup:
    """The `svg` element: an image whose text alternative is `title`."""
    return tag(
        "svg",
        tag("title", title),
        *marks,
        viewBox=f"0 0 {_pixels(width)} {_pixels(height)}",
        role="img",
        width=width,
        aria_label=title,
    )


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """One element. In attribute names `_` stands for `-`, `class_` for `class`; everything is escaped."""
    parts = []
    for key, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else _pixels(value)
            parts.append(f' {ATTRIBUTES.get(key, key.replace("_", "-"))}="{escape(text)}"')
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{inner}</{name}>" if inner else f"<{name}{''.join(parts)}/>")


def _pixels(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Markup:
    return tag("text", text, class_=style, x=x, y=y, text_anchor=anchor)


def _shorten(label: str, gutter: float) -> str:
    room = int((gutter - 10) / EM)
    return label if len(label) <= room + 1 else label[: room - 1] + "…"


def _diamond(x: float, y: float, r: float) -> str:
    return _polyline([(x - r, y), (x, y - r), (x + r, y), (x, y + r)]) + "Z"


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_pixels(a)} {_pixels(b)}" for a, b in points) if points else ""


def _interval(axis: Axis, y: float, low: float | None, high: float | None, style: str) -> list[Markup]:
    if low is None or high is None:
        return []
    a, b = axis(low), axis(high)
    ends = [tag("line", class_=f"whisker {style}", x1=x, x2=x, y1=y - 4, y2=y + 4) for x in (a, b)]
    return [tag("line", class_=f"whisker {style}", x1=a, x2=b, y1=y, y2=y), *ends]


def _swarm(axis: Axis, y: float, row: Row) -> list[Markup]:
    """Points of a row, moved up or down in turn where they would hide each other."""
    marks, level, last = list[Markup](), 0, -math.inf
    for name, value in sorted(row.points, key=lambda point: point[1]):
        x = axis(value)
        level = (level + 1) % 3 if x - last < 6 else 0
        last = x
        tip = tag("title", f"{name}: {number(value, 4)}")
        marks.append(tag("circle", tip, class_=f"unit {row.style}", cx=x, cy=y + (0, -6, 6)[level], r=3.2))
    return marks


def _shade(x: float, y: float, width: float, height: float, share: float) -> Markup:
    return tag("rect", class_="heat", x=x, y=y, width=width, height=height, fill_opacity=0.07 + 0.93 * share)


def _cell(
    x: float, y: float, size: float, diagonal: bool, value: float | None, ends: tuple[float, float]
) -> list[Markup]:
    if diagonal or value is None:
        return [tag("rect", class_="blank", x=x + 0.5, y=y + 0.5, width=size - 1, height=size - 1)]
    share = min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0]))) if ends[1] > ends[0] else 0.0
    marks = [_shade(x + 0.5, y + 0.5, size - 1, size - 1, share)]
    if size >= 30:
        style = "value dark" if share > 0.78 else "value middle" if share > 0.55 else "value"
        marks.append(_text(x + size / 2, y + size / 2 + 4, number(value, 2), style, "middle"))
    return marks


def _x_axis(axis: Axis, top: float, bottom: float, label: str) -> list[Markup]:
    marks = [tag("line", class_="axis", x1=axis.start, x2=axis.end, y1=bottom, y2=bottom)]
    for value in axis.ticks():
        marks.append(tag("line", class_="grid", x1=axis(value), x2=axis(value), y1=top, y2=bottom))
        marks.append(_text(axis(value), bottom + 15, compact(value), "tick", "middle"))
    if label:
        marks.append(_text((axis.start + axis.end) / 2, bottom + 32, label, "name", "middle"))
    return marks


def _y_axis(axis: Axis, left: float, right: float, label: str) -> list[Markup]:
    x, y = 12, (axis.start + axis.end) / 2
    turn = f"rotate(-90 {_pixels(x)} {_pixels(y)})"
    marks = [tag("text", label, class_="name", x=x, y=y, text_anchor="middle", transform=turn)]
    for value in axis.ticks():
        marks.append(tag("line", class_="grid", x1=left, x2=right, y1=axis(value), y2=axis(value)))
        marks.append(_text(left - 6, axis(value) + 4, compact(value), "tick", "end"))
    return marks


def _references(axis: Axis, references: Sequence[tuple[float, str]], top: float, bottom: float) -> list[Markup]:
    marks = list[Markup]()
    for value, label in references:
        x, half = axis(value), EM * len(label) / 2
        marks.append(tag("line", class_="reference", x1=x, x2=x, y1=top - 3, y2=bottom))
        marks.append(_text(min(max(x, half), WIDTH - half), top - 8, label, "tick", "middle"))
    return marks


def _legend_lines(entries: Sequence[tuple[str, str]]) -> list[list[tuple[float, str, str]]]:
    """Entries (x, label, style) of each line of a legend, broken where the width ends."""
    placed: list[list[tuple[float, str, str]]] = [[]]
    x = 52.0
    for label, style in entries:
        step = 30 + EM * len(label)
        if placed[-1] and x + step > WIDTH:
            placed.append([])
            x = 52.0
        placed[-1].append((x, label, style))
        x += step
    return placed


def _legend(entries: Sequence[tuple[str, str]]) -> list[Markup]:
    marks = list[Markup]()
    for i, row in enumerate(_legend_lines(entries)):
        for x, label, style in row:
            marks.append(tag("line", class_=f"line {style}", x1=x, x2=x + 16, y1=9 + 16 * i, y2=9 + 16 * i))
            marks.append(_text(x + 20, 13 + 16 * i, label, "tick", "start"))
    return marks
