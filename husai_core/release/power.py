"""How many more units would settle a question, at the spread seen so far."""

from __future__ import annotations

import bisect
import math

MOST = 1000


def t_cdf(t: float, df: int) -> float:
    """Student's t distribution function for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(theta), math.cos(theta)
    term, total = (cosine, cosine) if df % 2 else (1.0, 1.0)
    for j in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine**2 * (j - 1) / j
        total += term
    if df % 2 == 0:
        return (1 + sine * total) / 2
    return 0.5 + (theta + (sine * total if df > 1 else 0.0)) / math.pi


def t_quantile(probability: float, df: int) -> float:
    """Inverse of `t_cdf` for probabilities of at least one half, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(70):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < probability else (low, middle)
    return high


def units_needed(distance: float, half_width: float, n: int, confidence: float, power: float = 0.8) -> int | None:
    """Units at which a mean `distance` from a threshold would be told from it with this power.

    Args:
        distance: distance of the point estimate from the threshold; it is taken for the true one.
        half_width: half the present interval, from `n` units by a t-quantile.
        n: present number of units, at least 2.
        confidence: two-sided level of the interval.
        power: chance that the new interval excludes the threshold.

    Returns:
        The smallest such number above `n`, or None beyond 1000.
    """
    tail = (1 + confidence) / 2
    spread = half_width / t_quantile(tail, n - 1) * math.sqrt(n)

    def enough(units: int) -> bool:
        return distance * math.sqrt(units) >= spread * (t_quantile(tail, units - 1) + t_quantile(power, units - 1))

    numbers = range(n + 1, MOST + 1)
    place = bisect.bisect_left(numbers, True, key=enough)
    return numbers[place] if place < len(numbers) else None
