from __future__ import annotations

from math import inf
from typing import Any

import pytest

from husai_core.release.policy import Policy
from husai_core.release.policy_check import problems

STATISTICS = {
    "stress.trained_vs_random": {"pwmcc_excess": (-1.0, 1.0), "explained_variance": (-inf, 1.0)},
    "stress.ood": {"explained_variance_drop": (-inf, inf)},
}
RULE: dict[str, Any] = {
    "name": "stability",
    "title": "?",
    "evidence": "stress.trained_vs_random",
    "statistic": "pwmcc_excess",
    "bound": "low",
    "op": ">=",
    "threshold": 0.05,
    "settle": "run it",
}
WHOSE = {"name": "whose", "title": "?", "evidence": "stress.trained_vs_random", "accepts": ["claimed"], "settle": "run"}


def policy(*rules: dict[str, Any], confidence: float = 0.95) -> Policy:
    document = {"name": "lab", "version": 1, "title": "?", "confidence": confidence, "max_age_days": None}
    return Policy.model_validate({**document, "rules": rules})


def test_a_sound_policy_has_no_problems() -> None:
    assert problems(policy(RULE, WHOSE), STATISTICS) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"evidence": "stress.odd"},
            "rule x: no job kind 'stress.odd' gives evidence; did you mean stress.ood?",
        ),
        (
            {"evidence": "train.sae"},
            "rule x: no job kind 'train.sae' gives evidence; there are stress.ood, stress.trained_vs_random",
        ),
        (
            {"statistic": "pwmc_excess"},
            "rule x: stress.trained_vs_random has no statistic 'pwmc_excess'; did you mean pwmcc_excess?",
        ),
        (
            {"statistic": "loss"},
            "rule x: stress.trained_vs_random has no statistic 'loss'; it has explained_variance, pwmcc_excess",
        ),
        ({"threshold": 1.5}, "rule x: >= 1.5 cannot be reached: pwmcc_excess is at most 1"),
        (
            {"bound": "high", "op": "<=", "threshold": -2},
            "rule x: <= -2 cannot be reached: pwmcc_excess is at least -1",
        ),
    ],
)
def test_what_can_never_be_decided_is_named_with_what_may_be_meant(change: dict[str, Any], problem: str) -> None:
    assert problems(policy(RULE, {**RULE, "name": "x", **change}), STATISTICS) == [problem]


def test_a_bar_at_the_end_of_the_range_can_be_reached() -> None:
    assert problems(policy({**RULE, "threshold": 1}), STATISTICS) == []
    drop = {**RULE, "evidence": "stress.ood", "statistic": "explained_variance_drop", "bound": "high", "op": "<="}
    assert problems(policy(RULE, {**drop, "name": "x", "threshold": -1e9}), STATISTICS) == []


def test_the_evidence_of_a_provenance_rule_must_exist_too() -> None:
    (problem,) = problems(policy(RULE, {**WHOSE, "evidence": "stress.none"}), STATISTICS)
    assert "'stress.none' gives evidence" in problem


def test_intervals_are_not_more_confident_than_they_are() -> None:
    assert problems(policy(RULE, confidence=0.99), STATISTICS) == [
        "confidence 0.99 cannot be reached: intervals have 0.95"
    ]


def test_a_gate_that_cannot_test_itself_would_never_pass() -> None:
    (problem,) = problems(policy(WHOSE), STATISTICS)
    assert "the gate cannot test itself" in problem
