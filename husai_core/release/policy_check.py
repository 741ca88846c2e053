"""Whether a policy that a lab wrote can be decided at all: by the statistics that the job kinds declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from husai_core import wording
from husai_core.estimate import Estimate
from husai_core.release.decide import CONTROL_KIND, tested_rules
from husai_core.release.policy import Policy, Rule, StatisticRule

Statistics = Mapping[str, Mapping[str, tuple[float, float]]]
"""By job kind, the statistics of its results with the least and the largest value that each can take."""
CONFIDENCE: float = Estimate.model_fields["confidence"].default
"""The level of the intervals that the kinds give."""


def problems(policy: Policy, statistics: Statistics) -> list[str]:
    """What keeps a policy from ever passing, in words; nothing if it is sound."""
    texts = [text for rule in policy.rules for text in _of_rule(rule, statistics)]
    if policy.confidence > CONFIDENCE:
        texts.append(f"confidence {policy.confidence:g} cannot be reached: intervals have {CONFIDENCE:g}")
    if not tested_rules(policy):
        texts.append(
            f"no rule reads an excess of {CONTROL_KIND}, such as pwmcc_excess, so the gate cannot test itself on its "
            "controls"
        )
    return texts


def _of_rule(rule: Rule, statistics: Statistics) -> Iterator[str]:
    if rule.evidence not in statistics:
        near = wording.closest(rule.evidence, statistics)
        named = wording.hint(near) or f"; there are {', '.join(sorted(statistics))}"
        yield f"rule {rule.name}: no job kind {rule.evidence!r} gives evidence{named}"
    elif isinstance(rule, StatisticRule):
        yield from _of_statistic(rule, statistics[rule.evidence])


def _of_statistic(rule: StatisticRule, ranges: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    if rule.statistic not in ranges:
        near = wording.closest(rule.statistic, ranges)
        named = wording.hint(near) or f"; it has {', '.join(sorted(ranges))}"
        yield f"rule {rule.name}: {rule.evidence} has no statistic {rule.statistic!r}{named}"
        return
    low, high = ranges[rule.statistic]
    if rule.threshold > high if rule.op == ">=" else rule.threshold < low:
        side, end = ("at most", high) if rule.op == ">=" else ("at least", low)
        yield f"rule {rule.name}: {rule.op} {rule.threshold:g} cannot be reached: {rule.statistic} is {side} {end:g}"
