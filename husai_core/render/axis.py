"""Maps from data to pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LARGEST, LEAST_LOG, LARGEST_LOG = 1e300, 1e-200, 1e200
"""Values beyond these are drawn at the end of the axis: spreads, margins and powers of ten of larger ones overflow."""


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
        kept = [_bounded(v, log) for v in values if math.isfinite(v) and (v > LEAST_LOG or not log)]
        kept = kept or ([1.0] if log else [0.0])
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
        """Round values inside the axis; on a logarithmic one decades, with more between where they are few."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            whole = [10.0**e for e in decades if self.low <= 10.0**e <= self.high]
            fine = [m * 10.0**e for e in decades for m in (1, 2, 5) if self.low <= m * 10.0**e <= self.high]
            if len(whole) > 2:
                return whole[:: math.ceil(len(whole) / about)]
            if len(fine) > 1:
                return fine
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def _bounded(value: float, log: bool) -> float:
    return min(value, LARGEST_LOG) if log else max(-LARGEST, min(LARGEST, value))
