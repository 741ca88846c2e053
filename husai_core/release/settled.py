"""Whether a figure is settled: its change over the last doubling of training lies inside a margin.

This is an equivalence test by an interval (Schuirmann 1987, doi 10.1007/BF01068419): nothing is settled because no
change was seen, only because a change beyond the margin is excluded. A 95 % interval makes it stricter than the two
one-sided tests at 5 %.
"""

from __future__ import annotations

from typing import NamedTuple

from husai_core.estimate import Estimate
from husai_core.evidence import Evidence
from husai_core.release.policy import StatisticRule
from husai_core.release.power import units_needed

MORE_TOKENS = "train for more tokens, then repeat the measurement"
MEASURE_HALF = "train with a recipe whose half budget is measured, then repeat the measurement"
IMPORT_HALF = (
    "import each SAE as HUSAI exports it, with the folder half/ beside its weights, or train them here with train.sae, "
    "then repeat the measurement"
)
LEAST_UNITS = 3


class Unsettled(NamedTuple):
    """Why a figure counts as not settled, and what would settle it."""

    reason: str
    settle: str


def change_of(rule: StatisticRule, read: Evidence) -> Estimate | None:
    """How the rule's statistic changed over the last doubling of training, where the rule asks and it was measured."""
    change = None if rule.margin is None else read.changes.get(rule.statistic)
    return None if change is None or change.value is None else change


def why_unsettled(rule: StatisticRule, read: Evidence, confidence: float) -> Unsettled | None:
    """What speaks against a figure being settled; None where it is, or where this is not asked.

    A change that was not measured settles nothing, whoever trained the SAEs: leaving it out must not help a figure.

    Args:
        rule: asks for a statistic, perhaps with a margin.
        read: the result with the statistic and its change.
        confidence: level that the interval of the change must have at least.
    """
    if rule.margin is None:
        return None
    change = change_of(rule, read)
    if change is None or change.value is None:
        elsewhere = read.origin in ("claimed", "unknown")
        return Unsettled(
            "how the figure changed over the last doubling of training was not measured",
            IMPORT_HALF if elsewhere else MEASURE_HALF,
        )
    if change.low is None or change.high is None or change.n < LEAST_UNITS:
        reason = f"how far the last doubling of training changed the figure is unknown with {change.n} {change.unit}s"
        return Unsettled(reason, f"use at least {LEAST_UNITS} {change.unit}s")
    if change.confidence < confidence:
        reason = f"the interval of the change has confidence {change.confidence:g}; the policy asks for {confidence:g}"
        return Unsettled(reason, f"repeat it at confidence {confidence:g}")
    if max(-change.low, change.high) < rule.margin:
        return None
    changed = (
        f"the last doubling of training changed {rule.statistic} by {change.value:.3f} "
        f"[{change.low:.3f}, {change.high:.3f}]"
    )
    if abs(change.value) > rule.margin:
        return Unsettled(f"{changed}, more than ±{rule.margin:g}", MORE_TOKENS)
    return Unsettled(f"{changed}, perhaps more than ±{rule.margin:g}", _units(rule.margin, change))


def _units(margin: float, change: Estimate) -> str:
    """About how many units would show that a change, which looks small, is inside the margin."""
    value, low, high = change.value or 0.0, change.low or 0.0, change.high or 0.0
    half_width = max(value - low, high - value)
    needed = units_needed(margin - abs(value), half_width, change.n, change.confidence)
    if needed is None:
        return f"{MORE_TOKENS}: over 1000 {change.unit}s would be needed at the present spread"
    return f"use about {needed} {change.unit}s in all (now {change.n}), or {MORE_TOKENS}"


def misses_anyway(rule: StatisticRule, estimate: Estimate, change: Estimate | None) -> bool:
    """Whether a figure misses its bar by more than the last doubling of training can have changed it.

    Then it missed the bar at half the budget, too, and another doubling that changed it as much would not reach it.
    """
    best = {"low": estimate.high, "high": estimate.low, "value": estimate.value}[rule.bound]
    if best is None or change is None or change.low is None or change.high is None or change.n < LEAST_UNITS:
        return False
    short = rule.threshold - best if rule.op == ">=" else best - rule.threshold
    return short > max(-change.low, change.high)
