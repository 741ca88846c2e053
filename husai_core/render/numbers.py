"""Figures as people read them: a true minus sign, a dash for what is unknown, few decimals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from husai_core.estimate import Estimate
from husai_core.panels import Cell, Format

UNKNOWN = "–"
LONGEST = 1e15
"""From here on a figure is written with an exponent."""
BYTES = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None, digits: int = 3) -> str:
    """Fixed decimals."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if abs(value) >= LONGEST:
        return _exponent(value)
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Fixed decimals with a sign, `+` too."""
    return number(value, digits) if value < 0 else f"+{number(value, digits)}"


def _exponent(value: float) -> str:
    return f"{value:.3g}".replace("e+", "e").replace("-", "−")


def compact(value: float) -> str:
    """A short axis label: 0.25, 30, 2 M, 1e-4."""
    size = abs(value)
    if size >= LONGEST:
        return _exponent(value)
    for factor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if size >= factor * 0.9995:
            return f"{value / factor:.3g}{suffix}".replace("-", "−")
    text = f"{value:.0e}".replace("e-0", "e-") if 0 < size < 1e-3 else f"{value:.4g}"
    return text.replace("-", "−")


def ticks(values: Sequence[float]) -> list[str]:
    """Labels of an axis, with as many decimals as the longest of them: 0.50, 0.55, and 0 alone."""
    labels = [compact(value) for value in values]
    are_fixed = [label.lstrip("−").replace(".", "").isdigit() for label in labels]
    pairs = list(zip(values, labels, are_fixed, strict=True))
    digits = max((len(label.partition(".")[2]) for _, label, is_fixed in pairs if is_fixed), default=0)
    return [number(value, digits) if is_fixed and value else label for value, label, is_fixed in pairs]


def plain(value: float | None, digits: int | None = None) -> str:
    """Three decimals, or `digits`; none for whole and large numbers, an exponent for very small ones."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if digits is not None and not isinstance(value, int):
        return number(value, digits)
    if abs(value) >= LONGEST:
        return _exponent(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    if 0 < abs(value) < 5e-4:
        return f"{value:.1e}".replace("e-0", "e-").replace("-", "−")
    return number(value)


def size(value: float) -> str:
    """Bytes in the largest unit that keeps the figure above 1."""
    step = 0
    while abs(value) >= 1000 and step < len(BYTES) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.3g} {BYTES[step]}"


def duration(seconds: float) -> str:
    """Seconds as the two largest units: 4.2 s, 3 min 10 s, 2 h 5 min."""
    if abs(seconds) >= LONGEST:
        return f"{_exponent(seconds)} s"
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest_of_minute = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min" if minutes_left else f"{hours} h"
    return f"{minutes} min {rest_of_minute} s" if rest_of_minute else f"{minutes} min"


def interval(estimate: Estimate, digits: int | None = None, scale: float = 1.0) -> str:
    """An estimate with its interval, if that is known."""
    value = plain(_scaled(estimate.value, scale), digits)
    if estimate.low is None or estimate.high is None:
        return value
    if digits is None and all(_is_whole(end) for end in (estimate.value, estimate.low, estimate.high)):
        digits = 0
        value = number(_scaled(estimate.value, scale), digits)
    ends = [plain(_scaled(end, scale), digits) for end in (estimate.low, estimate.high)]
    return f"{value} [{ends[0]}, {ends[1]}]"


def _is_whole(value: float | None) -> bool:
    """Whether a figure is a whole number from 2 on, such as an L0 that no SAE departs from; shares are not."""
    return value is not None and 2 <= abs(value) < 1000 and value == round(value)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


def cell(value: Cell, form: Format = "text", digits: int | None = None) -> str:
    """What stands in a cell of a table; digests are shortened to 12 digits."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value[:12] if form == "digest" else value
    if isinstance(value, Estimate):
        if form == "share":
            return f"{interval(value, 1 if digits is None else digits, 100)} %"
        return interval(value, digits)
    return _figure(value, form, digits)


def _figure(value: float, form: Format, digits: int | None) -> str:
    if not math.isfinite(value):
        return UNKNOWN
    if form == "share":
        return f"{number(100 * value, 1 if digits is None else digits)} %"
    if form == "bytes":
        return size(value)
    if form == "seconds":
        return duration(value)
    if form == "integer":
        return plain(value if abs(value) >= LONGEST else round(value))
    return plain(value, digits)
