"""Elements of static figures as SVG text: no script, colours by class so that a page's style sheet decides them.

Classes: `s0` to `s7` are series, `good`, `bad` and `unknown` are verdicts, `neutral` is neither. Every figure is an
image with a text alternative, and its marks carry their numbers as tooltips. Widths are in pixels at scale 1; a figure
scales to its container.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from husai_core.panels import Reference
from husai_core.render.axis import Axis
from husai_core.render.numbers import compact, ticks

WIDTH, HEIGHT = 480, 270
EM = 6.9
"""Generous advance of a character of the 12 px labels."""
COLOURS = 8
ATTRIBUTES = {"class_": "class", "for_": "for"}


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """One element. In attribute names `_` stands for `-`, `class_` for `class`; everything is escaped."""
    parts = []
    for key, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else pixels(value)
            parts.append(f' {_attribute(key)}="{escape(text)}"')
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{name}{''.join(parts)}>{inner}</{name}>")


def _attribute(key: str) -> str:
    return ATTRIBUTES.get(key, key.replace("_", "-"))


def figure(width: float, height: float, title: str, marks: Iterable[Markup]) -> Markup:
    """The `svg` element: an image whose text alternative is `title`."""
    box = f"0 0 {pixels(width)} {pixels(height)}"
    return tag("svg", tag("title", title), *marks, viewBox=box, role="img", width=width, aria_label=title)


def pixels(value: float) -> str:
    """A length with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(x: float, y: float, words: str, style: str, anchor: str) -> Markup:
    """One line of text."""
    return tag("text", words, class_=style, x=x, y=y, text_anchor=anchor)


def shorten(label: str, room: float) -> str:
    """A label cut to what fits into `room` pixels."""
    letters = max(2, int(room / EM))
    return label if len(label) <= letters + 1 else label[: letters - 1] + "…"


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """The path through some pixels."""
    return "M" + "L".join(f"{pixels(a)} {pixels(b)}" for a, b in points) if points else ""


def diamond(x: float, y: float, r: float) -> str:
    """The path of a diamond around a pixel."""
    return polyline([(x - r, y), (x, y - r), (x + r, y), (x, y + r)]) + "Z"


def whisker(axis: Axis, y: float, low: float | None, high: float | None, style: str) -> list[Markup]:
    """A horizontal interval with its ends; nothing when it is unknown."""
    if low is None or high is None:
        return []
    a, b = axis(low), axis(high)
    ends = [tag("line", class_=f"whisker {style}", x1=x, x2=x, y1=y - 4, y2=y + 4) for x in (a, b)]
    return [tag("line", class_=f"whisker {style}", x1=a, x2=b, y1=y, y2=y), *ends]


def shade(x: float, y: float, width: float, height: float, share: float) -> Markup:
    """A cell of a heat map: blank at share 0, full colour at 1."""
    return tag("rect", class_="heat", x=x, y=y, width=width, height=height, fill_opacity=0.07 + 0.93 * share)


def x_axis(axis: Axis, top: float, bottom: float, label: str) -> list[Markup]:
    """The lower axis with its grid from `top` to `bottom`."""
    marks = [tag("line", class_="axis", x1=axis.start, x2=axis.end, y1=bottom, y2=bottom)]
    values = axis.ticks()
    for value, figure_text in zip(values, _labels(axis, values), strict=True):
        marks.append(tag("line", class_="grid", x1=axis(value), x2=axis(value), y1=top, y2=bottom))
        marks.append(text(axis(value), bottom + 15, figure_text, "tick", "middle"))
    if label:
        marks.append(text((axis.start + axis.end) / 2, bottom + 32, label, "name", "middle"))
    return marks


def y_axis(axis: Axis, left: float, right: float, label: str) -> list[Markup]:
    """The left axis with its grid from `left` to `right`; its label stands above it, where it can be read."""
    marks = [text(2, axis.end - 10, label, "name", "start")]
    values = axis.ticks()
    for value, figure_text in zip(values, _labels(axis, values), strict=True):
        marks.append(tag("line", class_="grid", x1=left, x2=right, y1=axis(value), y2=axis(value)))
        marks.append(text(left - 6, axis(value) + 4, figure_text, "tick", "end"))
    return marks


def _labels(axis: Axis, values: Sequence[float]) -> list[str]:
    return [compact(value) for value in values] if axis.log else ticks(values)


def references(axis: Axis, values: Sequence[Reference], top: float, bottom: float) -> list[Markup]:
    """Dashed vertical lines with their labels above, which make room for each other on lines of their own."""
    marks = list[Markup]()
    for reference, middle, line in _placed(axis, values):
        x = axis(reference.value)
        marks.append(tag("line", class_="reference", x1=x, x2=x, y1=top - 3 - 14 * line, y2=bottom))
        marks.append(text(middle, top - 8 - 14 * line, reference.label, "tick", "middle"))
    return marks


def reference_room(axis: Axis, values: Sequence[Reference]) -> float:
    """The height that the labels of `references` take."""
    return 14.0 * (1 + max(line for _, _, line in _placed(axis, values))) if values else 0.0


def _placed(axis: Axis, values: Sequence[Reference]) -> list[tuple[Reference, float, int]]:
    """Each reference with the middle of its label and the line that the label stands on, counted from below."""
    placed, ends = list[tuple[Reference, float, int]](), dict[int, float]()
    for reference in sorted(values, key=lambda reference: reference.value):
        half = EM * len(reference.label) / 2
        middle = min(max(axis(reference.value), half), max(half, WIDTH - half))
        line = next(i for i in range(len(values) + 1) if ends.get(i, -math.inf) <= middle - half)
        ends[line] = middle + half + 8
        placed.append((reference, middle, line))
    return placed


def style_of(position: int) -> str:
    """The class of the series at a position; after eight colours the lines are dashed."""
    return f"s{position % COLOURS}" + (" dashed" if position % (2 * COLOURS) >= COLOURS else "")


def legend_lines(entries: Sequence[tuple[str, str]], left: float) -> list[list[tuple[float, str, str]]]:
    """Entries (x, label, style) of each line of a legend, broken where the width ends."""
    placed: list[list[tuple[float, str, str]]] = [[]]
    x = left
    for label, style in entries:
        step = 30 + EM * len(label)
        if placed[-1] and x + step > WIDTH:
            placed.append([])
            x = left
        placed[-1].append((x, label, style))
        x += step
    return placed


def legend(entries: Sequence[tuple[str, str]], left: float, top: float) -> list[Markup]:
    """Labels with the colour of their series."""
    marks = list[Markup]()
    for i, row in enumerate(legend_lines(entries, left)):
        y = top + 16 * i
        for x, label, style in row:
            marks.append(tag("line", class_=f"line {style}", x1=x, x2=x + 16, y1=y, y2=y))
            marks.append(text(x + 20, y + 4, label, "tick", "start"))
    return marks
