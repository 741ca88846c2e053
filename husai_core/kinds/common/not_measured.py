"""What a check could not measure, and what would let it. Light: no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import BaseModel, ConfigDict, Field

from husai_core import kinds, panels
from husai_core.kinds.common import rule_panels
from husai_core.kinds.kind import Done
from husai_core.release.advice import lacking
from husai_core.release.judge import RuleOutcome

RETRY = "mending this and checking again; what was measured already is taken from its stored result"


class NotMeasured(BaseModel):
    """A measurement that was left out or failed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    reason: str
    would_take: str = Field(description="what would let it be measured")


def end(ended: Done) -> str:
    """How a job ended that did not succeed."""
    return ended.reason or ended.state


def beyond(rules: Sequence[RuleOutcome], measured: Collection[str]) -> list[NotMeasured]:
    """The kinds that a policy reads beside those that are measured, each once, where they decided nothing."""
    unmeasured: dict[str, NotMeasured] = {}
    for rule in rules:
        if rule.verdict == "inconclusive" and rule.evidence not in measured:
            installed = rule.evidence in kinds.names()
            reason = (
                "the policy reads it, and a check does not run it" if installed else "this version has no such kind"
            )
            would_take = rule.settle if installed and rule.settle else "a version of HUSAI that has it"
            unmeasured.setdefault(rule.evidence, NotMeasured(kind=rule.evidence, reason=reason, would_take=would_take))
    return list(unmeasured.values())


def panel(not_measured: Sequence[NotMeasured]) -> list[panels.AnyPanel]:
    """What was not measured, with equal reasons together."""
    pairs = [(missing.kind, f"{lacking(missing.model_dump())}.") for missing in not_measured]
    title = "What could not be measured"
    return [panels.Text(title=title, paragraphs=rule_panels.grouped(pairs))] if pairs else []
