"""Who trained the SAEs is a rule of its own."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from husai_core.evidence import Provenance
from husai_core.release.decide import Decision, decide
from husai_core.release.policy import load
from tests.husai_core.release.make import AS_OF, CANDIDATE, controls, full_evidence


def judged(policy: str, **fields: Any) -> Decision:
    evidence = full_evidence(load(policy), fields)
    return decide(load(policy), CANDIDATE, evidence, controls(), AS_OF)


@pytest.mark.parametrize("policy", ["strict", "internal", "own"])
@pytest.mark.parametrize("provenance", get_args(Provenance))
def test_only_the_provenance_rule_says_no(policy: str, provenance: Provenance) -> None:
    decision = judged(policy, provenance=provenance)
    accepted = provenance in ("trained here", "attested") or (policy, provenance) == ("own", "claimed")
    assert [rule.name for rule in decision.rules if rule.verdict != "pass"] == ([] if accepted else ["provenance"])
    assert decision.verdict == ("pass" if accepted else "fail")


def test_a_decision_on_trust_says_so() -> None:
    decision = judged("own", provenance="claimed")
    assert decision.verdict == "pass"
    assert decision.reasons == [
        "provenance: claimed: only their user says how the SAEs were trained, which this policy accepts"
    ]
    assert judged("own", provenance="attested").reasons == []


def test_a_refusal_names_what_is_accepted() -> None:
    assert judged("strict", provenance="unknown").reasons == [
        "provenance: unknown: nothing says how the SAEs were trained; accepted is: trained here, attested"
    ]


def test_earlier_evidence_tells_its_provenance_by_whether_it_was_imported() -> None:
    for imported, provenance in ((True, "claimed"), (False, "trained here")):
        assert judged("internal", provenance=None, imported=imported).rules[0].provenance == provenance


def test_a_model_that_is_shown_the_answer_is_no_better_for_its_provenance() -> None:
    assert judged("internal", leaks_label=True).rules[0].verdict == "inconclusive"


def test_without_evidence_provenance_is_undecided() -> None:
    rule = decide(load("internal"), CANDIDATE, [], controls(), AS_OF).rules[0]
    assert (rule.verdict, rule.provenance, rule.accepts) == ("inconclusive", None, ("trained here", "attested"))


def test_evidence_about_another_checkpoint_says_nothing_of_this_ones_provenance() -> None:
    evidence = full_evidence(load("internal"), {"provenance": "claimed"})
    rules = decide(load("internal"), "e" * 64, evidence, controls(), AS_OF).rules
    assert {(rule.verdict, rule.provenance, rule.settled) for rule in rules} == {("inconclusive", None, None)}
