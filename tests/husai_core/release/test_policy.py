from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from husai_core.release.policy import Policy, load, names

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


def policy(*rules: dict[str, Any]) -> Policy:
    return Policy.model_validate(
        {"name": "own", "version": 1, "title": "?", "confidence": 0.9, "max_age_days": 1, "rules": rules}
    )


def test_packaged_policies_load_and_are_named_after_their_files() -> None:
    assert names() == ["reference-2026-02", "strict"]
    assert [load(name).name for name in names()] == names()


def test_strict_asks_for_every_stress_and_both_benchmarks() -> None:
    kinds = {rule.evidence for rule in load("strict").rules}
    stresses = {"stress.trained_vs_random", "stress.transcoder", "stress.ood", "stress.untrained_model"}
    assert kinds == stresses | {"benchmark.saebench", "benchmark.cebench"}
    assert all(rule.bound != "value" and rule.requires_converged for rule in load("strict").rules)


def test_digest_follows_content_and_survives_a_round_trip() -> None:
    strict = load("strict")
    again = Policy.model_validate_json(strict.model_dump_json())
    looser = strict.model_copy(update={"confidence": 0.9})
    assert again.digest == strict.digest != looser.digest


def test_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="strict"):
        load("../strict")


@pytest.mark.parametrize(
    "change",
    [
        {"op": "<="},
        {"bound": "high"},
        {"attainable": (0, 0.04)},
        {"threshold": float("nan")},
        {"unknown": 1},
    ],
)
def test_unsound_rules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy({**RULE, **change})


def test_rule_names_are_unique() -> None:
    with pytest.raises(ValidationError, match="one name"):
        policy(RULE, RULE)
