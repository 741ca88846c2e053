from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from husai_core import identity, panels
from husai_core.errors import UserError
from husai_core.job import Artifact, Inputs
from husai_core.kinds.kind import Done
from husai_core.kinds.release import gate
from husai_core.local_job import LocalJob
from husai_core.release import bundle
from husai_core.release.policy import load
from husai_core.render import text_panels
from tests.husai_core.release.make import AS_OF, AT, CANDIDATE, controls, full_evidence

STRICT = load("strict")


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """A candidate with evidence that clears every rule."""
    evidence = []
    for number, item in enumerate(full_evidence(STRICT)):
        folder = tmp_path / f"evidence-{number}"
        folder.mkdir()
        (folder / "result.json").write_bytes(identity.canonical(item.document))
        evidence.append(Artifact(item.digest, "result", folder, [item.produced_at]))
    return Inputs({"candidate": [Artifact(CANDIDATE, "sae", tmp_path, [AT])], "evidence": evidence})


def decide(inputs: Inputs, done: Mapping[str, Done], folder: Path, **spec: Any) -> tuple[gate.Result, Path]:
    job = LocalJob(folder)
    decision = gate.summarise(gate.Spec(as_of=AS_OF, **spec), inputs, done, job)
    return decision, job.outputs[0][2]


def pretended() -> dict[str, Done]:
    measured = controls()
    return {
        f"{name}-stability": Done("succeeded", None, control.result, {"result": [control.artifact or ""]})
        for name, control in (("good", measured.good), ("bad", measured.bad))
    }


def test_controls_that_hold_let_the_rules_decide(inputs: Inputs, tmp_path: Path) -> None:
    decision, _ = decide(inputs, pretended(), tmp_path / "job")
    assert (decision.verdict, decision.self_test.passed) == ("pass", True)


def test_the_artifact_alone_makes_a_bundle_that_verifies(inputs: Inputs, tmp_path: Path) -> None:
    decision, folder = decide(inputs, pretended(), tmp_path / "job")
    sealed = bundle.seal(folder, Ed25519PrivateKey.generate(), bundle.Chain(seq=1))
    report = bundle.verify(json.loads(identity.canonical(sealed.model_dump(mode="json"))))
    assert (report.ok, report.verdict) == (True, decision.verdict)
    assert len(sealed.evidence) == len(inputs.many("evidence"))


def test_deciding_twice_writes_the_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    folders = [decide(inputs, pretended(), tmp_path / name)[1] for name in ("one", "two")]
    first, second = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert first == second
    assert set(first) == {"decision.json", "policy.json", "evidence.json", "controls.json"}


def test_evidence_that_is_given_twice_is_considered_once(inputs: Inputs, tmp_path: Path) -> None:
    twice = Inputs({**inputs.ports, "evidence": [*inputs.many("evidence")] * 2})
    once, _ = decide(inputs, pretended(), tmp_path / "once")
    assert decide(twice, pretended(), tmp_path / "twice")[0] == once


def test_without_evidence_every_rule_says_what_to_run(inputs: Inputs, tmp_path: Path) -> None:
    bare = Inputs({"candidate": inputs.ports["candidate"]})
    decision, _ = decide(bare, pretended(), tmp_path / "job")
    assert decision.verdict == "inconclusive"
    assert all(rule.settle and rule.settle.startswith("run ") for rule in decision.rules)


def test_a_failed_control_makes_the_gate_inconclusive(inputs: Inputs, tmp_path: Path) -> None:
    done = pretended() | {
        "bad-saes": Done("failed", "out of memory"),
        "bad-stability": Done("failed", "needs bad-saes"),
    }
    decision, _ = decide(inputs, done, tmp_path / "job")
    assert decision.verdict == "inconclusive"
    assert "bad-saes: out of memory" in decision.reasons[0]


def test_swapped_controls_make_the_gate_inconclusive(inputs: Inputs, tmp_path: Path) -> None:
    done = pretended()
    swapped = {"good-stability": done["bad-stability"], "bad-stability": done["good-stability"]}
    decision, _ = decide(inputs, swapped, tmp_path / "job")
    assert decision.verdict == "inconclusive"


def test_controls_are_planned_once_and_do_not_depend_on_the_candidate() -> None:
    first = gate.plan(gate.Spec(as_of=AS_OF), {"candidate": ["a"]}, {})
    assert first == gate.plan(gate.Spec(policy="reference-2026-02"), {"candidate": ["b"]}, {})
    assert gate.plan(gate.Spec(), {}, pretended()) == []
    assert {child.kind for child in first} == set(gate.KIND.children)


def test_a_file_that_is_no_result_is_the_users_mistake(inputs: Inputs, tmp_path: Path) -> None:
    first = inputs.many("evidence")[0]
    (first.path / "result.json").write_text('{"kind": 5}')
    with pytest.raises(UserError, match="not a result document"):
        decide(inputs, pretended(), tmp_path / "job")


def test_evidence_whose_bytes_have_changed_decides_nothing(inputs: Inputs, tmp_path: Path) -> None:
    file = inputs.many("evidence")[0].path / "result.json"
    document = json.loads(file.read_bytes())
    document["result"]["converged"] = not document["result"]["converged"]
    file.write_bytes(identity.canonical(document))
    with pytest.raises(UserError, match="no longer has its digest"):
        decide(inputs, pretended(), tmp_path / "job")


def test_as_of_must_be_there(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="as_of"):
        gate.summarise(gate.Spec(), inputs, pretended(), LocalJob(tmp_path / "job"))


def test_stale_evidence_is_judged_by_the_artifacts_age(inputs: Inputs, tmp_path: Path) -> None:
    old = [replace(artifact, produced_at=[0.0]) for artifact in inputs.many("evidence")]
    decision, _ = decide(Inputs({**inputs.ports, "evidence": old}), pretended(), tmp_path / "job")
    assert {rule.verdict for rule in decision.rules} == {"inconclusive"}
    assert "days old" in decision.rules[0].reason


def test_evidence_that_was_measured_again_is_fresh_and_what_came_later_changes_nothing(
    inputs: Inputs, tmp_path: Path
) -> None:
    month = 30 * 86_400.0
    again = [replace(artifact, produced_at=[0.0, AT - 9, AT + month]) for artifact in inputs.many("evidence")]
    decision, _ = decide(Inputs({**inputs.ports, "evidence": again}), pretended(), tmp_path / "job")
    assert decision.verdict == "pass"
    assert {item.produced_at for item in decision.evidence} == {AT - 9}
    later = [replace(artifact, produced_at=[AT + month, AT + 2 * month]) for artifact in inputs.many("evidence")]
    decision, _ = decide(Inputs({**inputs.ports, "evidence": later}), pretended(), tmp_path / "later")
    assert "produced after as_of" in decision.rules[0].reason


def test_what_is_shown_names_the_provenance_and_each_figures_change(inputs: Inputs, tmp_path: Path) -> None:
    decision, _ = decide(inputs, pretended(), tmp_path / "job")
    shown = {panel.title: panel for panel in gate.present(decision)}
    trainings, rules, bars = (
        shown[title] for title in ("Trainings behind the figures", "Rules", "Rules against their bars")
    )
    assert isinstance(trainings, panels.Table)
    assert isinstance(rules, panels.Table)
    assert isinstance(bars, panels.Intervals)
    question = "Is it proven how the SAEs were trained?"
    assert rules.rows[0] == ["provenance", question, "provenance", "trained here", "trained here or attested", "met"]
    assert {row[2] for row in rules.rows} >= {"kl_recovered_minus_random", "pwmcc_excess"}
    narrow = "\n".join(text_panels.render([rules], 80))
    assert question not in narrow
    assert not any(line.strip().startswith("figure ") for line in narrow.splitlines()), "no block for each row"
    assert len(trainings.rows) == len(bars.rows) == len(STRICT.rules) - 1
    settled = {row[0]: row[3:] for row in trainings.rows}
    assert settled["stability"] == ["within ±0.02", "yes"]
    assert settled["loss_recovered"] == ["", "not asked"]
    imported = [rule.model_copy(update={"comparable": "no" if rule.margin else None}) for rule in decision.rules]
    asked = {panel.title: panel for panel in gate.present(decision.model_copy(update={"rules": imported}))}
    compared = asked["Trainings behind the figures"]
    assert isinstance(compared, panels.Table)
    assert {row[0]: row[-1] for row in compared.rows}.items() >= {("stability", "no"), ("loss_recovered", "not asked")}


def test_the_spec_pins_the_policy_it_was_submitted_with() -> None:
    spec = gate.Spec(policy="strict")
    assert spec.policy_digest == STRICT.digest
    assert gate.Spec.model_validate(spec.model_dump()) == spec
    with pytest.raises(ValidationError, match="has digest"):
        gate.Spec(policy="strict", policy_digest="0" * 64)


def test_a_policy_of_the_labs_own_is_given_in_full(inputs: Inputs, tmp_path: Path) -> None:
    lenient = STRICT.model_copy(update={"name": "lenient", "rules": load("internal").rules[1:]})
    document = lenient.model_dump(mode="json")
    spec = gate.Spec.model_validate({"policy": "lenient", "policy_document": document})
    assert (spec.policy_digest, spec.resolved()) == (lenient.digest, lenient)
    decision, folder = decide(inputs, pretended(), tmp_path / "job", policy="lenient", policy_document=document)
    assert (decision.policy_digest, decision.verdict) == (lenient.digest, "pass")
    assert json.loads((folder / "policy.json").read_bytes()) == json.loads(identity.canonical(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "is called 'other', not 'lenient'"),
        ({"version": 0}, "version: must be at least 1"),
        ({"rules": [{"name": "a"}]}, r"rules.0.title: is missing"),
    ],
)
def test_a_policy_in_full_must_be_sound_and_the_one_that_is_named(change: dict[str, Any], message: str) -> None:
    document = STRICT.model_dump(mode="json") | {"name": "lenient"} | change
    with pytest.raises(ValidationError, match=message):
        gate.Spec.model_validate({"policy": "lenient", "policy_document": document})


def test_no_policy_in_full_takes_the_place_of_a_packaged_one() -> None:
    with pytest.raises(ValidationError, match="comes with husai"):
        gate.Spec.model_validate({"policy_document": STRICT.model_dump(mode="json")})


def test_a_policy_that_is_not_there_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UserError, match="no policy 'lenient'"):
        gate.plan(gate.Spec(policy="lenient"), {"candidate": ["a"]}, {})


@pytest.mark.parametrize("as_of", ["yesterday", "2026-01-31T12:00:00"])
def test_as_of_is_an_instant(as_of: str) -> None:
    with pytest.raises(ValidationError):
        gate.Spec(as_of=as_of)
