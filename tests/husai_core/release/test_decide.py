from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from husai_core import identity
from husai_core.estimate import Estimate
from husai_core.release.decide import decide, instant
from husai_core.release.evidence import Control, Controls, EvidenceItem
from husai_core.release.judge import RuleOutcome
from husai_core.release.policy import StatisticRule, load
from tests.husai_core.release.make import (
    AS_OF,
    AT,
    CANDIDATE,
    SIBLING,
    controls,
    full_evidence,
    interval,
    item,
    result,
    statistics_of,
)

STRICT = load("strict")
RULES = statistics_of(STRICT)


def verdict(evidence: list[EvidenceItem], candidate: str = CANDIDATE) -> str:
    return decide(STRICT, candidate, evidence, controls(), AS_OF).verdict


def stability(*evidence: EvidenceItem, candidate: str = CANDIDATE) -> RuleOutcome:
    outcomes = decide(STRICT, candidate, evidence, controls(), AS_OF).rules
    return next(outcome for outcome in outcomes if outcome.name == "stability")


def measured(value: float, half_width: float = 0.01, **fields: object) -> EvidenceItem:
    return item("stress.trained_vs_random", {"pwmcc_excess": interval(value, half_width)}, **fields)  # type: ignore[arg-type]


def test_all_clear_passes_without_reasons() -> None:
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT), controls(), AS_OF)
    assert (decision.verdict, decision.reasons) == ("pass", [])
    assert all(rule.settle is None and rule.evidence_digest for rule in decision.rules)
    assert {rule.provenance for rule in decision.rules} == {"trained here"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_statistic_alone_can_fail_the_candidate(rule: StatisticRule) -> None:
    wrong = interval(rule.threshold + (-0.2 if rule.op == ">=" else 0.2))
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT, **{rule.statistic: wrong}), controls(), AS_OF)
    assert decision.verdict == "fail"
    named = {other.name for other in RULES if other.statistic == rule.statistic}
    assert {reason.split(":")[0] for reason in decision.reasons} == named


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_good_value_with_a_wide_interval_is_no_pass(rule: StatisticRule) -> None:
    wide = interval(rule.threshold + (0.1 if rule.op == ">=" else -0.1), half_width=0.2)
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT, **{rule.statistic: wide}), controls(), AS_OF)
    outcome = next(outcome for outcome in decision.rules if outcome.name == rule.name)
    assert decision.verdict == outcome.verdict == "inconclusive"
    assert "about" in (outcome.settle or "")


def test_the_published_margin_of_6e_5_is_not_a_pass() -> None:
    thin = Estimate(value=0.00123, low=6.2e-5, high=0.0024, n=5)
    outcome = stability(item("stress.trained_vs_random", {"pwmcc_excess": thin}))
    assert outcome.verdict == "fail"
    assert "below 0.05" in outcome.reason


def test_missing_evidence_is_inconclusive_and_says_what_to_run() -> None:
    evidence = [item for item in full_evidence(STRICT) if item.document["kind"] != "benchmark.cebench"]
    decision = decide(STRICT, CANDIDATE, evidence, controls(), AS_OF)
    assert decision.verdict == "inconclusive"
    assert decision.rules[-1].settle == "run benchmark.cebench on this candidate"
    assert decision.rules[-1].evidence_digest is None


def test_evidence_about_one_checkpoint_never_passes_another() -> None:
    assert verdict(full_evidence(STRICT), candidate="e" * 64) == "inconclusive"
    assert "other checkpoints" in stability(measured(0.4), candidate="e" * 64).reason


def test_a_claimed_subject_that_was_not_an_input_is_not_bound() -> None:
    assert "other checkpoints" in stability(measured(0.4, inputs=(SIBLING,))).reason


def test_age_is_judged_at_as_of() -> None:
    assert stability(measured(0.4, age_days=90)).verdict == "pass"
    stale = stability(measured(0.4, age_days=90.01))
    assert (stale.verdict, stale.reason) == ("inconclusive", "the result is 90 days old; the policy allows 90")
    assert stability(measured(0.4, age_days=-1)).verdict == "pass"


def test_an_early_as_of_does_not_make_stale_evidence_fresh() -> None:
    assert stability(measured(0.4, age_days=-7)).verdict == "pass"
    ahead = stability(measured(0.4, age_days=-7.01))
    assert (ahead.verdict, ahead.reason) == ("inconclusive", "the result was produced after as_of")


def test_a_model_that_is_shown_the_answer_is_never_admissible() -> None:
    for value in (0.4, 0.0):
        outcome = stability(measured(value, leaks_label=True))
        assert (outcome.verdict, outcome.reason) == ("inconclusive", "the model's input shows the answer")


@pytest.mark.parametrize(
    "changes",
    [{"n": 2}, {"low": 0.45}, {"high": 0.35}, {"high": None}],
    ids=["two seeds", "value below", "value above", "one end"],
)
def test_an_interval_that_is_none_is_not_used(changes: dict[str, float | None]) -> None:
    estimate = Estimate.model_validate({"value": 0.4, "low": 0.3, "high": 0.5, "n": 5, **changes})
    outcome = stability(item("stress.trained_vs_random", {"pwmcc_excess": estimate}))
    assert (outcome.verdict, outcome.reason) == ("inconclusive", "the interval is not usable")


def test_stable_features_that_reconstruct_nothing_fail() -> None:
    evidence = full_evidence(STRICT, explained_variance=interval(0.1))
    decision = decide(STRICT, CANDIDATE, evidence, controls(), AS_OF)
    assert (decision.verdict, decision.rules[1].verdict, decision.rules[1].name) == ("fail", "fail", "reconstruction")


def test_poor_reconstruction_of_noise_does_not_stand_in_for_the_self_test() -> None:
    statistics = {"pwmcc_excess": interval(0.4), "explained_variance": interval(0.1)}
    swapped = Controls(good=controls().good, bad=Control(artifact="b" * 64, result=result(statistics, "bad")))
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT), swapped, AS_OF)
    assert not decision.self_test.passed
    assert "known-bad control passes" in decision.reasons[0]


def test_an_unknown_interval_is_inconclusive_however_good_the_value() -> None:
    point = Estimate(value=0.9, n=2)
    outcome = stability(item("stress.trained_vs_random", {"pwmcc_excess": point}))
    assert (outcome.verdict, outcome.settle) == ("inconclusive", "use at least 3 seeds")


def test_a_laxer_interval_than_the_policy_asks_for_is_inconclusive() -> None:
    lax = Estimate(value=0.4, low=0.39, high=0.41, n=5, confidence=0.8)
    assert "asks for 0.95" in stability(item("stress.trained_vs_random", {"pwmcc_excess": lax})).reason


def test_an_absent_figure_and_an_unreadable_result_are_inconclusive() -> None:
    assert "no figure" in stability(item("stress.trained_vs_random", {"pwmcc": interval(0.4)})).reason
    broken = measured(0.4)
    document = {**broken.document, "result": {"subject": 5}}
    assert "cannot be read" in stability(broken.model_copy(update={"document": document})).reason


def test_the_least_favourable_of_several_results_counts() -> None:
    assert stability(measured(0.4), measured(0.0)).verdict == "fail"
    assert stability(measured(0.4), measured(0.06, half_width=0.1)).verdict == "inconclusive"
    assert stability(measured(0.4), measured(0.0, age_days=500)).verdict == "pass"


def test_fail_outranks_inconclusive() -> None:
    evidence = [measured(0.0)]
    assert verdict(evidence) == "fail"


@pytest.mark.parametrize(
    ("worlds", "reason"),
    [
        (controls(good=0.0), "known-good control does not pass"),
        (controls(bad=0.4), "known-bad control passes"),
        (controls(leaks_label=True), "could not be measured"),
        (Controls(good=controls().good, bad=Control(reason="training failed")), "training failed"),
    ],
)
@pytest.mark.parametrize("excess", [0.4, 0.0])
def test_a_gate_that_cannot_tell_its_controls_apart_says_nothing(worlds: Controls, reason: str, excess: float) -> None:
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT, pwmcc_excess=interval(excess)), worlds, AS_OF)
    assert decision.verdict == "inconclusive"
    assert reason in decision.reasons[0]
    assert not decision.self_test.passed


def test_order_of_evidence_does_not_matter() -> None:
    evidence = [*full_evidence(STRICT), measured(0.0)]
    first, second = (decide(STRICT, CANDIDATE, ordered, controls(), AS_OF) for ordered in (evidence, evidence[::-1]))
    assert identity.canonical(first.model_dump(mode="json")) == identity.canonical(second.model_dump(mode="json"))


def test_as_of_needs_a_time_zone() -> None:
    assert instant(AS_OF) == AT == instant("2026-01-31T13:00:00+01:00")
    with pytest.raises(ValueError, match="zone"):
        instant("2026-01-31T12:00:00")


finite = st.floats(-2, 2)


@settings(deadline=None)
@given(st.lists(finite, min_size=3, max_size=3).map(sorted), st.sampled_from(RULES))
def test_verdict_follows_the_interval(ends: list[float], rule: StatisticRule) -> None:
    low, value, high = ends
    estimate = Estimate(value=value, low=low, high=high, n=5)
    decision = decide(STRICT, CANDIDATE, full_evidence(STRICT, **{rule.statistic: estimate}), controls(), AS_OF)
    outcome = next(outcome for outcome in decision.rules if outcome.name == rule.name)
    inside = low >= rule.threshold if rule.op == ">=" else high <= rule.threshold
    outside = high < rule.threshold if rule.op == ">=" else low > rule.threshold
    assert outcome.verdict == ("pass" if inside else "fail" if outside else "inconclusive")
    assert (outcome.settle is None) == (outcome.verdict != "inconclusive")
