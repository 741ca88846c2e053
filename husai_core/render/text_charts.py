"""Small drawings in characters: an interval against its bar, a line, a bar. Every function gives one line of text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from husai_core.render.axis import LARGEST

BLOCKS = "▁▂▃▄▅▆▇█"


class Axis:
    """Where values lie on a line of `width` characters, at least of 1."""

    def __init__(self, values: Iterable[float | None], width: int) -> None:
        known = [max(-LARGEST, min(LARGEST, value)) for value in values if value is not None and math.isfinite(value)]
        self.low, self.high = (min(known), max(known)) if known else (0.0, 1.0)
        if self.low == self.high:
            margin = max(0.5, 1e-6 * abs(self.low))
            self.low, self.high = self.low - margin, self.high + margin
        self.width = max(1, width)

    def place(self, value: float) -> int:
        """The character that a value falls on; what lies outside falls on an end."""
        share = (value - self.low) / (self.high - self.low)
        return round(min(1.0, max(0.0, share)) * (self.width - 1))

    def ends(self, low: str, high: str) -> str:
        """The line below the drawings: what its two ends stand for."""
        space = self.width - len(low) - len(high)
        return low + " " * max(1, space) + high


def interval(
    axis: Axis,
    value: float | None,
    low: float | None,
    high: float | None,
    bar: float | None = None,
    references: Iterable[float] = (),
    units: Iterable[float] = (),
) -> str:
    """`├──●──┤` on an axis: the bar is `┃`, references are `┊`, single units `·`; without an interval only `●`."""
    line = [" "] * axis.width
    for reference in references:
        line[axis.place(reference)] = "┊"
    if low is not None and high is not None:
        start, end = axis.place(low), axis.place(high)
        line[start : end + 1] = "─" * (end - start + 1)
        line[start], line[end] = "├", "┤"
    for unit in units:
        line[axis.place(unit)] = "·"
    if bar is not None:
        line[axis.place(bar)] = "┃"
    if value is not None:
        line[axis.place(value)] = "●"
    return "".join(line)


def sparkline(points: Sequence[tuple[float, float]], width: int, log_x: bool = False, log_y: bool = False) -> str:
    """A line in at most `width` characters of eight heights; a character shows the mean of what falls on it,
    or goes on where nothing does.
    """
    usable = [(x, y) for x, y in points if not (log_x and x <= 0) and not (log_y and y <= 0)]
    if not usable:
        return ""
    xs = [math.log(x) if log_x else x for x, _ in usable]
    ys = [math.log(y) if log_y else y for _, y in usable]
    across, sums = Axis(xs, min(width, len(usable))), dict[int, list[float]]()
    for x, y in zip(xs, ys, strict=True):
        sums.setdefault(across.place(x), []).append(y)
    means = {place: sum(values) / len(values) for place, values in sums.items()}
    up = Axis(means.values(), len(BLOCKS))
    heights = [BLOCKS[up.place(means[place])] if place in means else "" for place in range(across.width)]
    return "".join(accumulate(heights, lambda before, height: height or before))


def bar(value: float, largest: float, width: int) -> str:
    """A horizontal bar from zero; `largest` fills the width. A negative value is drawn in lighter shade."""
    length = round(width * min(1.0, abs(value) / largest)) if largest else 0
    return ("█" if value >= 0 else "░") * length
