"""One rule against the evidence: pure functions of policy, rule, candidate, results and the instant of judgement."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from husai_core.estimate import Estimate
from husai_core.evidence import Answer, Evidence, Provenance
from husai_core.release import comparable, settled
from husai_core.release.evidence import EvidenceItem
from husai_core.release.policy import Policy, ProvenanceRule, Rule, StatisticRule, without_unset
from husai_core.release.power import units_needed
from husai_core.release.settled import LEAST_UNITS

ENGINE = 6
COMPATIBLE = (2, 3, 4, 5, 6)
"""The versions whose decisions this one repeats. From 3 on a reason names the trainings that had not converged; in 4
imported SAEs pass no rule; from 5 on provenance is a rule of its own and figures with a margin must be settled; from 6
on a claimed recipe must make such SAEs as it is claimed of."""
DAY = 86_400
AHEAD_DAYS = 7
"""How long after `as_of` evidence may be produced and count as fresh: a pipeline is stamped when it is submitted.

Without a limit, an early `as_of` would make stale evidence fresh.
"""
ROUNDING = 1e-9
"""What rounding may put between the ends of an interval without width and its value."""

Verdict = Literal["pass", "fail", "inconclusive"]
SEVERITY: dict[Verdict, int] = {"fail": 0, "inconclusive": 1, "pass": 2}
LATER = ("provenance", "accepts", "retrained", "margin", "change", "settled", "comparable")
"""Members of an outcome that engines before 5 did not write, nor those before 6 the last."""
PROVENANCES: dict[Provenance, str] = {
    "trained here": "the SAEs were trained here",
    "attested": "a signed manifest says how the SAEs were trained",
    "claimed": "only their user says how the SAEs were trained",
    "unknown": "nothing says how the SAEs were trained",
}


class RuleOutcome(BaseModel):
    """What one rule made of the evidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    evidence: str = Field(description="the job kind that was asked for")
    evidence_digest: str | None = Field(default=None, description="the result artifact that was read")
    statistic: str | None = Field(default=None, description="none where the rule is about provenance")
    value: float | None = None
    low: float | None = None
    high: float | None = None
    bound: str | None = None
    op: str | None = None
    threshold: float | None = None
    verdict: Verdict
    reason: str
    settle: str | None = Field(default=None, description="what would settle an inconclusive rule")
    provenance: Provenance | None = Field(default=None, description="the weakest of the SAEs that were measured")
    accepts: tuple[Provenance, ...] | None = Field(default=None, description="the provenances that the rule accepts")
    retrained: bool | None = Field(default=None, description="SAEs were trained here by a claimed recipe")
    margin: float | None = Field(default=None, description="how far the last doubling of training may change it")
    change: Estimate | None = Field(default=None, description="how far it did")
    settled: bool | None = Field(default=None, description="the change lies inside the margin; none: not asked")
    comparable: Answer | None = Field(
        default=None, description="a claimed recipe makes such SAEs here as it is claimed of; none: not asked"
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(serialise(self), LATER)


class Obstacle(IntEnum):
    """What kept a rule from being compared with a figure. The higher, the nearer the evidence came to being usable."""

    NO_RESULT = -8
    UNREADABLE = -7
    OTHER_CHECKPOINT = -6
    WRONG_TIME = -5
    LEAKED_LABEL = -4
    NO_FIGURE = -3
    UNPROVEN_TRAINING = -2
    NO_INTERVAL = -1
    NONE = 0


class Judged(NamedTuple):
    """The outcome of one rule on one result."""

    obstacle: Obstacle
    verdict: Verdict
    reason: str
    settle: str | None = None
    estimate: Estimate | None = None


def undecided(obstacle: Obstacle, reason: str, settle: str | None = None, estimate: Estimate | None = None) -> Judged:
    """The outcome of a rule that nothing decides."""
    return Judged(obstacle, "inconclusive", reason, settle, estimate)


def judge_rule(
    policy: Policy, rule: Rule, candidate: str, evidence: Sequence[EvidenceItem], at: float, engine: int = ENGINE
) -> RuleOutcome:
    """One rule's outcome, as a version of this code, the `engine`, judges.

    Where several usable results answer a rule, the least favourable counts, so that choosing among repetitions
    cannot improve a verdict. Where none is usable, the one nearest to being so gives the reason.
    """
    outcomes: list[tuple[Judged, EvidenceItem | None]] = [
        (_judge_item(policy, rule, candidate, item, at, engine), item)
        for item in sorted(evidence, key=lambda item: item.digest)
        if item.document["kind"] == rule.evidence
    ]
    missing = undecided(Obstacle.NO_RESULT, f"there is no result of {rule.evidence}", rule.settle), None
    judged, item = min(outcomes or [missing], key=lambda pair: (-pair[0].obstacle, SEVERITY[pair[0].verdict]))
    estimate = judged.estimate or Estimate(value=None)
    about_it = item if judged.obstacle > Obstacle.OTHER_CHECKPOINT else None
    return RuleOutcome(
        **rule.model_dump(include={"name", "title", "evidence", "statistic", "bound", "op", "threshold"}),
        evidence_digest=item and item.digest,
        **estimate.model_dump(include={"value", "low", "high"}),
        verdict="fail" if policy.two_valued and judged.verdict != "pass" else judged.verdict,
        reason=judged.reason,
        settle=judged.settle,
        **_background(policy, rule, about_it, engine) if engine >= 5 else {},
    )


def _background(policy: Policy, rule: Rule, item: EvidenceItem | None, engine: int) -> dict[str, Any]:
    """What an outcome says of the trainings behind it: whose they were, and whether they are settled and comparable."""
    read = read_evidence(item.document["result"]) if item else None
    facts: dict[str, Any] = {}
    if isinstance(rule, ProvenanceRule):
        facts["accepts"] = rule.accepts
    elif rule.margin is not None:
        facts["margin"] = rule.margin
    if read is not None:
        facts |= {"provenance": read.origin, "retrained": read.retrained or None}
    if read is not None and isinstance(rule, StatisticRule) and rule.margin is not None:
        facts["change"] = settled.change_of(rule, read)
        facts["settled"] = settled.why_unsettled(rule, read, policy.confidence) is None
        if engine >= 6:
            facts["comparable"] = comparable.answer(rule, read)
    return facts


def _judge_item(policy: Policy, rule: Rule, candidate: str, item: EvidenceItem, at: float, engine: int) -> Judged:
    """Check that a document speaks about the candidate and is fresh, then judge its result."""
    read = read_evidence(item.document["result"])
    inputs = {digest for port in item.document["inputs"].values() for digest in port}
    if read and (candidate not in inputs or candidate not in read.subject):
        return undecided(
            Obstacle.OTHER_CHECKPOINT, f"the result of {rule.evidence} is about other checkpoints", rule.settle
        )
    age = (at - item.produced_at) / DAY
    if age < -AHEAD_DAYS:
        return undecided(Obstacle.WRONG_TIME, "the result was produced after as_of", "decide again at a later as_of")
    if policy.max_age_days is not None and age > policy.max_age_days:
        reason = f"the result is {age:.0f} days old; the policy allows {policy.max_age_days:g}"
        return undecided(Obstacle.WRONG_TIME, reason, f"{rule.settle} again")
    return judge_result(policy, rule, read, engine)


def read_evidence(result: dict[str, Any]) -> Evidence | None:
    """The part of a result that every kind of evidence has, or None when it is not there."""
    try:
        return Evidence.model_validate({name: result[name] for name in Evidence.model_fields if name in result})
    except ValidationError:
        return None


def judge_result(policy: Policy, rule: Rule, read: Evidence | None, engine: int = ENGINE) -> Judged:
    """Check that a result is honest, then ask it what the rule asks."""
    if read is None:
        return undecided(Obstacle.UNREADABLE, f"the result of {rule.evidence} cannot be read as evidence", rule.settle)
    if read.leaks_label:
        settle = "train and measure on a model whose input does not show the answer"
        return undecided(Obstacle.LEAKED_LABEL, "the model's input shows the answer", settle)
    if isinstance(rule, ProvenanceRule):
        return _judge_provenance(rule, read)
    return _judge_statistic(policy, rule, read, engine)


def _judge_provenance(rule: ProvenanceRule, read: Evidence) -> Judged:
    """Pass when the weakest provenance among the SAEs is accepted. It is a fact, so nothing would settle it."""
    text = PROVENANCES[read.origin]
    if read.origin in rule.accepts:
        return Judged(Obstacle.NONE, "pass", f"{read.origin}: {text}, which this policy accepts")
    return Judged(Obstacle.NONE, "fail", f"{read.origin}: {text}; accepted is: {', '.join(rule.accepts)}")


def _judge_statistic(policy: Policy, rule: StatisticRule, read: Evidence, engine: int) -> Judged:
    """Compare a figure that has a sufficient interval, and ask whether the trainings behind it allow that."""
    estimate = read.statistics.get(rule.statistic)
    if estimate is None or estimate.value is None:
        return undecided(Obstacle.NO_FIGURE, f"the result has no figure '{rule.statistic}'", rule.settle, estimate)
    if engine < 5 and read.imported:
        reason = "the SAEs were imported, so nothing shows how they were trained"
        return undecided(Obstacle.UNPROVEN_TRAINING, reason, "train them here with train.sae", estimate)
    if rule.requires_converged and not read.converged:
        named = f"training had not converged: {', '.join(read.unconverged)}"
        unnamed = "a training run behind the figure had not converged"
        reason = named if read.unconverged else unnamed
        return undecided(Obstacle.UNPROVEN_TRAINING, reason, settled.MORE_TOKENS, estimate)
    judged = _unknown(policy, rule, estimate) or _compare(rule, estimate)
    if judged.obstacle is not Obstacle.NONE:
        return judged
    if engine >= 6 and (unlike := comparable.why_not(rule, read)):
        return undecided(Obstacle.UNPROVEN_TRAINING, unlike.reason, unlike.settle, estimate)
    unsettled = settled.why_unsettled(rule, read, policy.confidence)
    missed = judged.verdict == "fail" and settled.misses_anyway(rule, estimate, settled.change_of(rule, read))
    if unsettled is None or missed:
        return judged
    return undecided(Obstacle.UNPROVEN_TRAINING, unsettled.reason, unsettled.settle, estimate)


def _unknown(policy: Policy, rule: StatisticRule, estimate: Estimate) -> Judged | None:
    """Why the interval that a rule needs is not there, or None when it is."""
    if rule.bound == "value":
        return None
    if getattr(estimate, rule.bound) is None:
        reason = f"the interval is unknown with {estimate.n} {estimate.unit}s"
        return undecided(Obstacle.NO_INTERVAL, reason, f"use at least {LEAST_UNITS} {estimate.unit}s", estimate)
    if not _usable(estimate):
        return undecided(Obstacle.NO_INTERVAL, "the interval is not usable", rule.settle, estimate)
    if estimate.confidence < policy.confidence:
        reason = f"the interval has confidence {estimate.confidence:g}; the policy asks for {policy.confidence:g}"
        return undecided(Obstacle.NO_INTERVAL, reason, f"repeat it at confidence {policy.confidence:g}", estimate)
    return None


def _usable(estimate: Estimate) -> bool:
    """True when an interval has both ends around its value and rests on enough units."""
    low, value, high = estimate.low, estimate.value, estimate.high
    if low is None or value is None or high is None or estimate.n < LEAST_UNITS:
        return False
    return low - ROUNDING <= value <= high + ROUNDING


def _compare(rule: StatisticRule, estimate: Estimate) -> Judged:
    """Pass when the bound clears the threshold, fail when the other end shows that it cannot."""
    other = {"low": "high", "high": "low", "value": "value"}[rule.bound]
    bound, best = getattr(estimate, rule.bound), getattr(estimate, other)
    name = {"low": "the lower bound", "high": "the upper bound", "value": "the value"}
    sign, side = (1, "below") if rule.op == ">=" else (-1, "above")
    if sign * (bound - rule.threshold) >= 0:
        return Judged(
            Obstacle.NONE, "pass", f"{name[rule.bound]} {bound:.4g} is {rule.op} {rule.threshold:g}", None, estimate
        )
    if best is not None and sign * (best - rule.threshold) < 0:
        whole = "" if rule.bound == "value" else "even "
        reason = f"{whole}{name[other]} {best:.4g} lies {side} {rule.threshold:g}"
        return Judged(Obstacle.NONE, "fail", reason, None, estimate)
    reason = f"{name[rule.bound]} {bound:.4g} lies {side} {rule.threshold:g}, but the interval reaches across it"
    return undecided(Obstacle.NONE, reason, _settle(rule, estimate), estimate)


def _settle(rule: StatisticRule, estimate: Estimate) -> str:
    """About how many units would decide an undecided rule."""
    value, bound = estimate.value, getattr(estimate, rule.bound)
    if value is None or value == rule.threshold or estimate.n < 2:
        return f"use more {estimate.unit}s"
    half_width, distance = abs(value - bound), abs(value - rule.threshold)
    needed = units_needed(distance, half_width, estimate.n, estimate.confidence)
    side = "pass" if (value > rule.threshold) == (rule.op == ">=") else "fail"
    if needed is None:
        return f"more {estimate.unit}s will not settle it: over 1000 would be needed at the present spread"
    return (
        f"about {needed} {estimate.unit}s in all (now {estimate.n}) would show a {side} with power 0.8, "
        "if the estimate and its spread are right"
    )
