"""A claimed recipe must make such SAEs as it is claimed of, or what is trained by it decides nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from husai_core.evidence import RecipeCheck
from husai_core.release.bundle import Bundle
from husai_core.release.decide import Decision, decide
from husai_core.release.policy import load
from tests.husai_core.release.make import AS_OF, CANDIDATE, controls, full_evidence, interval, recipe_check

FIXTURES = Path(__file__).parent / "fixtures"
OWN = load("own")
WITH_MARGIN = {rule.name for rule in OWN.rules if getattr(rule, "margin", None)}


def judged(check: RecipeCheck | None, engine: int = 6, **fields: Any) -> Decision:
    evidence = full_evidence(OWN, {"provenance": "claimed", "recipe_check": check, **fields})
    return decide(OWN, CANDIDATE, evidence, controls(), AS_OF, engine)


def test_a_recipe_that_makes_such_saes_lets_their_figures_be_judged() -> None:
    decision = judged(recipe_check())
    assert decision.verdict == "pass"
    assert {rule.comparable for rule in decision.rules if rule.name in WITH_MARGIN} == {"yes"}
    assert {rule.comparable for rule in decision.rules if rule.name not in WITH_MARGIN} == {None}


def test_one_that_makes_other_saes_leaves_every_rule_about_trainings_undecided_and_names_the_figures() -> None:
    decision = judged(recipe_check("no", "explained_variance", "pwmcc"))
    rules = {rule.name: rule for rule in decision.rules}
    assert {name for name, rule in rules.items() if rule.verdict != "pass"} == WITH_MARGIN
    assert {rules[name].verdict for name in WITH_MARGIN} == {"inconclusive"}
    assert rules["stability"].comparable == "no"
    assert rules["stability"].reason == (
        "the claimed recipe makes other SAEs here, so its controls are not comparable: explained variance 0.940 "
        "against 0.900, a difference of [0.038, 0.042], more than ±0.02; overlap of seeds (PWMCC) 1.000 against "
        "0.900, a difference of [0.095, 0.105], more than ±0.05"
    )
    assert "--recipe FILE" in (rules["stability"].settle or "")


def test_where_that_is_unknown_only_what_may_differ_is_named() -> None:
    rule = next(rule for rule in judged(recipe_check("unknown", "l0")).rules if rule.name == "transcoder")
    assert (rule.verdict, rule.comparable) == ("inconclusive", "unknown")
    assert rule.reason.endswith("L0 1.100 against 0.900, a difference of [-0.200, 0.600], perhaps more than ±0.4")
    assert "explained variance" not in rule.reason
    assert "retrained_seeds" in (rule.settle or "")


def test_leaving_the_check_out_meets_no_rule_about_trainings() -> None:
    rules = {rule.name: rule for rule in judged(None).rules}
    assert {rules[name].verdict for name in WITH_MARGIN} == {"inconclusive"}
    assert rules["stability"].comparable == "unknown"
    assert "no SAEs that were trained here by the claimed recipe" in rules["stability"].reason


@pytest.mark.parametrize("value", [0.4, 0.0, -0.5])
def test_neither_a_pass_nor_a_fail_rests_on_other_trainings(value: float) -> None:
    evidence = full_evidence(OWN, {"provenance": "claimed", "recipe_check": None}, pwmcc_excess=interval(value))
    rules = decide(OWN, CANDIDATE, evidence, controls(), AS_OF).rules
    assert next(rule for rule in rules if rule.name == "stability").verdict == "inconclusive"


def test_saes_trained_here_need_no_check() -> None:
    evidence = full_evidence(OWN, {"provenance": "trained here"})
    decision = decide(OWN, CANDIDATE, evidence, controls(), AS_OF)
    assert (decision.verdict, {rule.comparable for rule in decision.rules}) == ("pass", {None})


def test_engine_5_did_not_ask_and_writes_nothing_of_it() -> None:
    decision = judged(None, engine=5)
    assert decision.verdict == "pass"
    assert all("comparable" not in rule.model_dump(mode="json") for rule in decision.rules)


def test_evidence_of_before_is_judged_anew_as_unchecked() -> None:
    bundle = Bundle.model_validate(json.loads((FIXTURES / "engine-5.bundle.json").read_bytes()))
    again = decide(bundle.policy, bundle.candidate, bundle.evidence, bundle.controls, bundle.as_of)
    unchecked = {rule.comparable for rule in again.rules if rule.margin and rule.evidence_digest}
    assert unchecked == {"unknown"}
