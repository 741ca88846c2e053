"""A verdict with its rules: as rows of a table, as Markdown and as JUnit XML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from husai.errors import Exit
from husai.terminal import number
from husai_core.release.advice import RULE_WORDS
from husai_core.render.text_layout import printable

if TYPE_CHECKING:
    from husai.models import Decision

COLUMNS = ("rule", "reads", "figure", "needed", "verdict")
DROPPABLE = ("reads",)
"""What a narrow terminal goes without."""
CODES = {"pass": Exit.OK, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}
MEANING = {
    "pass": "The gate says: release. Every rule is met.",
    "fail": "The gate says: do not release. The evidence is against it.",
    "inconclusive": "The gate says: inconclusive. Some rules are undecided.",
}
MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}


@dataclass(frozen=True)
class Judgement:
    """A verdict with what it rests on."""

    verdict: str
    policy: str
    candidate: str
    reasons: Sequence[str] = ()
    rules: Sequence[Mapping[str, Any]] = ()
    job: str | None = None
    decision: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of_decision(cls, decision: Decision) -> Self:
        """The judgement in a recorded decision."""
        return cls(
            decision.verdict, decision.policy, decision.candidate, decision.reasons, decision.rules,
            decision.job, decision.id, decision.raw,
        )  # fmt: skip

    @property
    def exit_code(self) -> Exit:
        """0 pass, 1 fail, 4 inconclusive."""
        return CODES.get(self.verdict, Exit.INCONCLUSIVE)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The rules under `COLUMNS`."""
        return [
            (
                str(rule.get("name")),
                str(rule.get("statistic") or ("provenance" if rule.get("accepts") else "")),
                str(rule.get("provenance") or "unknown") if rule.get("accepts") else figure(rule),
                needed(rule),
                RULE_WORDS.get(str(rule.get("verdict")), str(rule.get("verdict"))),
            )
            for rule in self.rules
        ]

    @property
    def grouped_reasons(self) -> list[str]:
        """Every reason once, with the names of the rules that it holds for."""
        names: dict[str, list[str]] = {}
        for rule in self.rules:
            counts = rule.get("verdict") != "pass" or f"{rule.get('name')}: {rule.get('reason')}" in self.reasons
            if counts and rule.get("reason"):
                names.setdefault(str(rule["reason"]), []).append(str(rule.get("name")))
        return [*self.other_reasons, *(f"{', '.join(rules)}: {reason}" for reason, rules in names.items())]

    @property
    def other_reasons(self) -> list[str]:
        """The reasons that are not already those of a rule."""
        of_rules = {f"{rule.get('name')}: {rule.get('reason')}" for rule in self.rules}
        return [reason for reason in self.reasons if reason not in of_rules]


def figure(rule: Mapping[str, Any]) -> str:
    """`value [low, high]`, the value alone where its interval is unknown, or `unknown`."""
    value, low, high = rule.get("value"), rule.get("low"), rule.get("high")
    known = value is not None and low is not None and high is not None
    return number(value, 3) + (f" [{number(low, 3)}, {number(high, 3)}]" if known else "")


def needed(rule: Mapping[str, Any]) -> str:
    """What the rule asks: which end of the interval must clear which threshold, or which provenance."""
    if rule.get("threshold") is None:
        return " or ".join(map(str, rule.get("accepts") or ()))
    end = {"low": "lower end ", "high": "upper end "}.get(str(rule.get("bound")), "")
    sign = {">=": "≥", "<=": "≤"}.get(str(rule.get("op")), str(rule.get("op") or ""))
    return f"{end}{sign} {number(rule['threshold'])}"


def markdown(judgement: Judgement) -> str:
    """A summary for a CI page."""
    mark = MARKS.get(judgement.verdict, "")
    lines = [
        f"### {mark} HUSAI release gate `{_cell(judgement.policy)}`: {judgement.verdict}",
        "",
        f"Candidate `{judgement.candidate}`",
        "",
    ]
    if judgement.rules:
        columns = (*COLUMNS, "reason")
        lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        reasons = [str(rule.get("reason") or "") for rule in judgement.rules]
        titles = [str(rule.get("title") or rule.get("name")) for rule in judgement.rules]
        rows = [(title, *row[1:], reason) for title, row, reason in zip(titles, judgement.rows(), reasons, strict=True)]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
        lines.append("")
    lines += [f"- {_cell(reason)}" for reason in judgement.other_reasons]
    if judgement.decision:
        lines += ["", f"Decision `{judgement.decision}`; check it offline with `husai verify`."]
    return "\n".join(lines).rstrip() + "\n"


def _cell(text: str) -> str:
    """Text that cannot break out of a Markdown table cell."""
    return " ".join(printable(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def junit(judgement: Judgement) -> str:
    """One test case for each rule, for CI systems that read JUnit XML; an inconclusive rule is an error."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    rules = judgement.rules or [
        {"name": "verdict", "verdict": judgement.verdict, "reason": "; ".join(judgement.reasons)}
    ]
    counts = {
        "tests": len(rules),
        "failures": sum(rule["verdict"] == "fail" for rule in rules),
        "errors": sum(rule["verdict"] == "inconclusive" for rule in rules),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    suite = Element("testsuite", {"name": f"husai.{judgement.policy or 'gate'}", **numbers})
    for rule in rules:
        case = SubElement(suite, "testcase", {"classname": "husai.gate", "name": str(rule.get("name"))})
        tag = {"fail": "failure", "inconclusive": "error"}.get(str(rule["verdict"]))
        if tag:
            message = printable(str(rule.get("reason") or ""))
            SubElement(case, tag, {"type": str(rule["verdict"]), "message": message})
    indent(suite)
    return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
