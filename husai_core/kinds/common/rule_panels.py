"""The rules of a decision as panels: each figure with its interval against its bar. Light: no torch."""

from __future__ import annotations

from collections.abc import Sequence

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.release.advice import RULE_WORDS
from husai_core.release.decide import ControlOutcome
from husai_core.release.judge import RuleOutcome
from husai_core.render import numbers

TONES: dict[str, panels.Tone] = {"pass": "good", "fail": "bad", "inconclusive": "unknown"}
SIGNS = {">=": "\N{GREATER-THAN OR EQUAL TO}", "<=": "\N{LESS-THAN OR EQUAL TO}"}
ENDS = {"low": "lower end ", "high": "upper end ", "value": ""}


def figure(outcome: RuleOutcome | ControlOutcome) -> Estimate:
    """The figure of an outcome with its interval."""
    return Estimate(value=outcome.value, low=outcome.low, high=outcome.high)


def table(rules: Sequence[RuleOutcome]) -> panels.Table:
    """Every rule with its question, the statistic that it reads, its figure, what it needs, and its verdict."""
    rows: list[list[panels.Cell]] = [
        [
            rule.name,
            rule.title,
            rule.statistic or "provenance",
            rule.provenance if rule.accepts else None if rule.value is None else figure(rule),
            _needed(rule),
            RULE_WORDS[rule.verdict],
        ]
        for rule in rules
    ]
    columns = [
        panels.Column(label="rule"),
        panels.Column(label="question", room="page"),
        panels.Column(label="reads", room="wide"),
        panels.Column(label="figure", format="number"),
        panels.Column(label="needed"),
        panels.Column(label="verdict"),
    ]
    return panels.Table(title="Rules", columns=columns, rows=rows)


def _needed(rule: RuleOutcome) -> str:
    """What a rule asks for, in few words."""
    if rule.threshold is None:
        return " or ".join(rule.accepts or ())
    return f"{ENDS.get(rule.bound or '', '')}{SIGNS.get(rule.op or '', '')} {numbers.compact(rule.threshold)}"


def tally(rules: Sequence[RuleOutcome]) -> str:
    """How many rules are not met, undecided and met, with the names of those that are not."""
    parts = list[str]()
    for verdict in ("fail", "inconclusive", "pass"):
        names = [rule.name for rule in rules if rule.verdict == verdict]
        count = str(len(names)) if parts else f"{len(names)} of {len(rules)} rules"
        listed = "" if verdict == "pass" else f" ({', '.join(names)})"
        parts += [f"{count} {'is' if len(names) == 1 else 'are'} {RULE_WORDS[verdict]}{listed}"] if names else []
    return "; ".join(parts)


def bars(rules: Sequence[RuleOutcome]) -> list[panels.AnyPanel]:
    """The rules that have a figure, against what they need."""
    rows = [
        panels.IntervalRow(
            label=rule.name,
            estimate=figure(rule),
            bar=rule.threshold,
            op=">=" if rule.op == ">=" else "<=",
            tone=TONES[rule.verdict],
        )
        for rule in rules
        if rule.value is not None and rule.threshold is not None
    ]
    note = (
        "A rule is met where the whole interval lies on the right side of its bar. It is undecided all the same where "
        "the last doubling of training changed the figure too much, or that change is unknown."
    )
    return [panels.Intervals(title="Rules against their bars", note=note, rows=rows)] if rows else []


def grouped(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Texts with the names that they are about, each text once."""
    names_of: dict[str, list[str]] = {}
    for name, text in pairs:
        names_of.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in names_of.items()]
