from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from husai_core import kinds
from husai_core.release.policy import Policy, ProvenanceRule, load, names
from tests.husai_core.release.make import rule_named, statistics_of

FIXTURES = Path(__file__).parent / "fixtures"
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
    assert names() == ["internal", "own", "reference-2026-02", "strict"]
    assert [load(name).name for name in names()] == names()


STRESSES = {"stress.trained_vs_random", "stress.transcoder", "stress.ood", "stress.untrained_model"}


def test_strict_is_internal_and_both_external_benchmarks() -> None:
    strict, internal = load("strict"), load("internal")
    assert {rule.evidence for rule in internal.rules} == STRESSES | {"benchmark.core"}
    assert strict.rules[: len(internal.rules)] == internal.rules
    assert {rule.evidence for rule in strict.rules[len(internal.rules) :]} == {
        "benchmark.saebench",
        "benchmark.cebench",
    }
    assert all(rule.bound != "value" for rule in statistics_of(strict))


def test_whatever_training_stands_behind_must_be_settled() -> None:
    margins = {rule.statistic: rule.margin for rule in statistics_of(load("strict")) if rule.evidence in STRESSES}
    overlaps = {"pwmcc_excess", "pwmcc_excess_rescaled", "sae_minus_transcoder_rescaled", "trained_minus_untrained"}
    assert margins == {name: 0.02 if name in overlaps else 0.01 for name in margins}
    assert overlaps < set(margins)


@pytest.mark.parametrize("name", names())
def test_what_a_statistic_can_attain_is_what_its_kind_declares(name: str) -> None:
    for rule in statistics_of(load(name)):
        if rule.attainable and rule.evidence in kinds.names():
            assert rule.attainable == kinds.get(rule.evidence).statistics[rule.statistic], rule.name


def test_own_differs_from_internal_in_the_provenance_that_it_accepts() -> None:
    lenient, internal = load("own"), load("internal")
    assert lenient.rules[1:] == internal.rules[1:]
    rules = [rule_named(policy, "provenance") for policy in (internal, lenient)]
    assert [rule.accepts for rule in rules if isinstance(rule, ProvenanceRule)] == [
        ("trained here", "attested"),
        ("trained here", "attested", "claimed"),
    ]


def test_a_policy_of_before_keeps_its_bytes_and_its_digest() -> None:
    assert load("reference-2026-02").digest == "6a589b7b3b6ffb42d1c3c4106e8e97d406917e8b64dcd8b5731682c344ef3a4a"
    document = json.loads((FIXTURES / "engine-4.bundle.json").read_bytes())
    policy = Policy.model_validate(document["policy"])
    assert policy.model_dump(mode="json") == document["policy"]
    assert policy.digest == document["decision"]["policy_digest"]


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
        {"margin": 0},
        {"accepts": ["trained here"]},
    ],
)
def test_unsound_rules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy({**RULE, **change})


@pytest.mark.parametrize("accepts", [[], ["somebody"], "claimed"])
def test_a_provenance_rule_accepts_known_provenances(accepts: object) -> None:
    form = {name: RULE[name] for name in ("name", "title", "evidence", "settle")}
    assert policy({**form, "accepts": ["claimed"]}).rules[0] == ProvenanceRule(**form, accepts=("claimed",))
    with pytest.raises(ValidationError):
        policy({**form, "accepts": accepts})


def test_rule_names_are_unique() -> None:
    with pytest.raises(ValidationError, match="one name"):
        policy(RULE, RULE)
