"""The decision: a pure function of policy, candidate, evidence, controls and the instant of judgement."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from husai_core import identity
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, KeyFigures
from husai_core.release.evidence import Control, Controls, EvidenceItem
from husai_core.release.judge import (
    ENGINE,
    SEVERITY,
    Obstacle,
    RuleOutcome,
    Verdict,
    judge_result,
    judge_rule,
    read_evidence,
    undecided,
)
from husai_core.release.policy import Policy, StatisticRule

CONTROL_KIND = "stress.trained_vs_random"
CONTROL_STATISTICS = "_excess"
"""How the statistics end that the controls test: noise is no features even where it is reconstructed well."""


class ControlOutcome(BaseModel):
    """What the policy's stability rules made of one control world."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    artifact: str | None = Field(description="digest of the result artifact")
    result_digest: str | None = Field(description="digest of the result itself")
    statistic: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    measured: bool = Field(description="a converged figure with an interval was there to judge")
    reason: str


class SelfTest(BaseModel):
    """Whether the gate tells a known-good world from a known-bad one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    good: ControlOutcome
    bad: ControlOutcome
    passed: bool
    reason: str


class Considered(BaseModel):
    """A result artifact that was put before the gate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    digest: str
    kind: str
    produced_at: float = Field(description="Unix time in seconds")


class Decision(BaseResult):
    """The verdict on one candidate with everything that led to it."""

    verdict: Verdict
    policy: str
    policy_digest: str
    candidate: str = Field(description="digest of the SAE checkpoint")
    as_of: str = Field(description="instant at which freshness was judged")
    reasons: list[str]
    rules: list[RuleOutcome]
    self_test: SelfTest
    evidence: list[Considered]
    engine: int = Field(default=ENGINE, description="version of the judging code")

    @property
    def key_figures(self) -> KeyFigures:
        """The verdict, and whose."""
        return {"verdict": self.verdict, "policy": self.policy}


def decide(
    policy: Policy,
    candidate: str,
    evidence: Sequence[EvidenceItem],
    controls: Controls,
    as_of: str,
    engine: int = ENGINE,
) -> Decision:
    """Judge a candidate, as a version of the judging code did: one of `judge.COMPATIBLE`.

    A failed self-test makes the verdict `inconclusive` even where a rule failed: a gate that cannot tell its own
    controls apart has nothing to say either way.

    Raises:
        ValueError: `as_of` is not an RFC 3339 instant.
    """
    at = instant(as_of)
    rules = [judge_rule(policy, rule, candidate, evidence, at, engine) for rule in policy.rules]
    test = self_test(policy, controls, engine)
    worst = min((rule.verdict for rule in rules), key=SEVERITY.__getitem__)
    reasons = [] if test.passed else [f"self-test: {test.reason}"]
    reasons += [f"{rule.name}: {rule.reason}" for rule in rules if rule.verdict != "pass" or _on_trust(rule)]
    return Decision(
        verdict=worst if test.passed else "inconclusive",
        policy=policy.name,
        policy_digest=policy.digest,
        candidate=candidate,
        as_of=as_of,
        reasons=reasons,
        rules=rules,
        self_test=test,
        evidence=[
            Considered(digest=item.digest, kind=item.document["kind"], produced_at=item.produced_at)
            for item in sorted(evidence, key=lambda item: item.digest)
        ],
        engine=engine,
    )


def _on_trust(rule: RuleOutcome) -> bool:
    """Whether a rule accepts what nothing proves; the decision then says so among its reasons."""
    return rule.accepts is not None and rule.provenance in ("claimed", "unknown")


def instant(as_of: str) -> float:
    """Unix seconds of an RFC 3339 instant with its offset."""
    moment = datetime.fromisoformat(as_of)
    if moment.tzinfo is None:
        raise ValueError(f"as_of '{as_of}' names no time zone")
    return moment.timestamp()


def self_test(policy: Policy, controls: Controls, engine: int = ENGINE) -> SelfTest:
    """Judge the policy's stability rules on both controls.

    The good one must pass; the bad one must be measured and must not.
    """
    good, bad = (_control(policy, control, engine) for control in (controls.good, controls.bad))
    if not tested_rules(policy):
        reason = f"the policy has no rule on an excess in {CONTROL_KIND}, so nothing can be tested"
    elif good.verdict != "pass":
        reason = f"the known-good control does not pass: {good.reason}"
    elif bad.verdict == "pass":
        reason = f"the known-bad control passes: {bad.reason}"
    elif not bad.measured:
        reason = f"the known-bad control could not be measured: {bad.reason}"
    else:
        return SelfTest(good=good, bad=bad, passed=True, reason="the gate tells its controls apart")
    return SelfTest(good=good, bad=bad, passed=False, reason=reason)


def tested_rules(policy: Policy) -> list[StatisticRule]:
    """The rules that the controls test: those on an excess over the nulls.

    Their margins are left out: the controls ask whether the bar tells features from noise. How long SAEs on a control
    world are trained is no fact about the candidate.
    """
    statistics = (rule for rule in policy.rules if isinstance(rule, StatisticRule))
    tested = (r for r in statistics if r.evidence == CONTROL_KIND and r.statistic.endswith(CONTROL_STATISTICS))
    return [rule.model_copy(update={"margin": None}) for rule in tested]


def _control(policy: Policy, control: Control, engine: int) -> ControlOutcome:
    """The worst outcome of the stability rules on a control; neither binding nor freshness applies."""
    rules = tested_rules(policy)
    if control.result is None or not rules:
        reason = control.reason or "there is nothing to judge it by"
        judged, statistic = undecided(Obstacle.NO_RESULT, reason), None
    else:
        read = read_evidence(control.result)
        outcomes = [(judge_result(policy, rule, read, engine), rule.statistic) for rule in rules]
        judged, statistic = min(outcomes, key=lambda pair: (SEVERITY[pair[0].verdict], pair[0].obstacle))
    estimate = judged.estimate or Estimate(value=None)
    return ControlOutcome(
        artifact=control.artifact,
        result_digest=None if control.result is None else identity.digest(control.result),
        statistic=statistic,
        **estimate.model_dump(include={"value", "low", "high"}),
        verdict=judged.verdict,
        measured=judged.obstacle is Obstacle.NONE,
        reason=judged.reason,
    )
