"""Settled, not converged: the change over the last doubling of training lies inside the rule's margin."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from husai_core.estimate import Estimate
from husai_core.evidence import Provenance
from husai_core.release.decide import decide
from husai_core.release.judge import RuleOutcome
from husai_core.release.policy import load
from tests.husai_core.release.make import AS_OF, CANDIDATE, controls, full_evidence, interval, item, statistics_of

KIND = "stress.trained_vs_random"
MOVED = interval(0.034, 0.013)
CHANGES = (interval(0.0, 0.001), interval(0.0, 0.5), MOVED, Estimate(value=0.0, n=2))


def stability(value: float, change: Estimate | None, **fields: object) -> RuleOutcome:
    """The outcome of the rule `stability` of `strict`: bar 0.05, margin 0.02."""
    changes = {} if change is None else {"pwmcc_excess": change}
    evidence = item(KIND, {"pwmcc_excess": interval(value)}, changes=changes, **fields)
    outcomes = decide(load("strict"), CANDIDATE, [evidence], controls(), AS_OF).rules
    return next(outcome for outcome in outcomes if outcome.name == "stability")


def test_a_figure_that_came_to_rest_is_judged() -> None:
    outcome = stability(0.4, interval(0.005, 0.01))
    assert (outcome.verdict, outcome.settled, outcome.margin, outcome.change) == (
        "pass", True, 0.02, interval(0.005, 0.01),
    )  # fmt: skip


def test_a_figure_that_still_moves_is_undecided_and_says_by_how_much() -> None:
    outcome = stability(0.4, MOVED)
    assert (outcome.verdict, outcome.settled) == ("inconclusive", False)
    assert outcome.reason == (
        "the last doubling of training changed pwmcc_excess by 0.034 [0.021, 0.047], more than ±0.02"
    )
    assert outcome.settle == "train for more tokens, then repeat the measurement"


def test_where_only_the_interval_is_too_wide_more_seeds_are_advised() -> None:
    outcome = stability(0.4, interval(0.002, 0.03))
    assert (outcome.verdict, outcome.settled) == ("inconclusive", False)
    assert outcome.reason.endswith("by 0.002 [-0.028, 0.032], perhaps more than ±0.02")
    assert (outcome.settle or "").startswith("use about 1")
    hopeless = stability(0.4, interval(0.0199, 0.3))
    assert "over 1000 seeds would be needed" in (hopeless.settle or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "was not measured"),
        (Estimate(value=None), "was not measured"),
        (Estimate(value=0.0, n=2), "is unknown with 2 seeds"),
        (Estimate(value=0.0, low=0.0, high=0.0, n=2), "is unknown with 2 seeds"),
        (Estimate(value=0.0, low=-0.001, high=0.001, n=5, confidence=0.8), "the policy asks for 0.95"),
    ],
)
def test_what_is_not_known_to_have_come_to_rest_passes_nothing(change: Estimate | None, reason: str) -> None:
    outcome = stability(0.4, change)
    assert (outcome.verdict, outcome.settled) == ("inconclusive", False)
    assert reason in outcome.reason
    assert outcome.settle


def test_a_fail_stands_only_where_the_change_cannot_explain_it() -> None:
    assert stability(-0.1, MOVED).verdict == "fail", "0.14 short of the bar, moved by 0.047 at most"
    assert stability(0.03, MOVED).verdict == "inconclusive", "0.01 short of the bar"
    assert stability(-0.1, interval(-0.034, 0.013)).verdict == "fail"
    assert stability(0.03, interval(0.0, 0.001)).verdict == "fail", "it is settled"
    assert stability(-0.5, None).verdict == "inconclusive", "nothing says how far it moved"


def test_an_upper_bar_is_missed_from_the_other_side() -> None:
    for drop, verdict in ((0.3, "fail"), (0.14, "inconclusive"), (0.0, "inconclusive")):
        evidence = item("stress.ood", {"explained_variance_drop": interval(drop)})
        evidence.document["result"]["changes"] = {"explained_variance_drop": MOVED.model_dump()}
        outcomes = decide(load("strict"), CANDIDATE, [evidence], controls(), AS_OF).rules
        assert next(outcome for outcome in outcomes if outcome.name == "ood.reconstruction").verdict == verdict


@pytest.mark.parametrize("provenance", [*get_args(Provenance), None])
def test_whoever_trained_the_saes_a_change_that_was_not_measured_settles_nothing(provenance: Provenance | None) -> None:
    outcome = stability(0.4, None, provenance=provenance)
    assert (outcome.verdict, outcome.settled) == ("inconclusive", False)
    elsewhere = provenance in ("claimed", "unknown")
    assert ("half/ beside its weights" in (outcome.settle or "")) == elsewhere, "what is possible for these SAEs"


@settings(deadline=None)
@given(st.data())
def test_leaving_changes_out_meets_no_rule(data: st.DataObject) -> None:
    """Over all rules of the shipped policies: nothing is met without a change that is not met with it."""
    policy = load(data.draw(st.sampled_from(["internal", "own", "strict"])))
    provenance = data.draw(st.sampled_from(get_args(Provenance)))
    near_bars = st.builds(interval, st.floats(-0.2, 1.2), st.floats(0, 0.1))
    figures = {rule.statistic: data.draw(near_bars) for rule in statistics_of(policy)}
    evidence = full_evidence(policy, {"provenance": provenance}, **figures)
    for rule in evidence:
        changes = rule.document["result"]["changes"]
        changes |= {name: data.draw(st.sampled_from(CHANGES)).model_dump() for name in changes}
    without = full_evidence(policy, {"provenance": provenance, "changes": {}}, **figures)
    full, less = (decide(policy, CANDIDATE, judged, controls(), AS_OF).rules for judged in (evidence, without))
    assert all(before.verdict == "pass" for before, after in zip(full, less, strict=True) if after.verdict == "pass")
    assert not any(outcome.margin and outcome.verdict == "pass" for outcome in less)


def test_retraining_by_a_claimed_recipe_is_labelled() -> None:
    assert stability(0.4, interval(0.0, 0.001), provenance="claimed", retrained=True).retrained is True
    assert stability(0.4, interval(0.0, 0.001)).retrained is None


@settings(deadline=None)
@given(st.floats(-0.1, 0.1), st.floats(0, 0.1))
def test_passing_needs_the_whole_interval_of_the_change_inside_the_margin(value: float, half_width: float) -> None:
    change = interval(value, half_width)
    inside = max(abs(value - half_width), abs(value + half_width)) < 0.02
    assert stability(0.4, change).verdict == ("pass" if inside else "inconclusive")
