from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from husai_core import kinds, panels
from husai_core.errors import UserError
from husai_core.job import Inputs
from husai_core.kinds.kind import Done, From
from husai_core.kinds.study import pipeline
from husai_core.local_job import LocalJob, LocalRunner

AS_OF = datetime.now(UTC).isoformat()
SMOKE = pipeline.Spec(preset="smoke", as_of=AS_OF)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, dict[str, Done]]:
    """The whole smoke pipeline, run once: its outcome and its stages."""
    runner = LocalRunner(tmp_path_factory.mktemp("smoke"))
    outcome = runner.outcome("study.pipeline", SMOKE.model_dump(), {})
    assert outcome.state == "succeeded", outcome.reason
    return outcome, runner.children


def summarise(done: dict[str, Done], tmp_path: Path, **spec: Any) -> pipeline.Result:
    changed = pipeline.Spec.model_validate({**SMOKE.model_dump(), **spec})
    return pipeline.summarise(changed, Inputs({}), done, LocalJob(tmp_path))


def patched(done: dict[str, Done], stage: str, **result: Any) -> dict[str, Done]:
    return {**done, stage: replace(done[stage], result=merged(done[stage].result or {}, result))}


def merged(stored: Any, change: Any) -> Any:
    """A document with other values at some paths; of a list, the first records are changed and the rest left out."""
    if isinstance(change, Mapping):
        return {**stored, **{name: merged(stored[name], value) for name, value in change.items()}}
    if isinstance(change, list):
        return [merged(record, value) for record, value in zip(stored, change, strict=False)]
    return change


def test_smoke_reaches_a_decision_about_the_first_seed(smoke: tuple[Done, dict[str, Done]]) -> None:
    outcome, done = smoke
    result = outcome.result or {}
    assert result["candidate"] == done["sae"].outputs["saes"][0]
    assert result["verdict"] in {"fail", "inconclusive"}
    assert [stage["name"] for stage in result["stages"]] == list(pipeline.STAGES)
    assert any("benchmark.saebench" in reason for reason in result["reasons"])


def test_the_gate_read_all_evidence_about_this_candidate(smoke: tuple[Done, dict[str, Done]]) -> None:
    _, done = smoke
    gate = done["gate"].result or {}
    read = {rule["evidence_digest"] for rule in gate["rules"] if rule["evidence_digest"]}
    assert read == {done[stage].outputs["result"][0] for stage in pipeline.MEASURED}
    assert not any("other checkpoints" in rule["reason"] for rule in gate["rules"])
    missing = {rule["statistic"] for rule in gate["rules"] if "no figure" in rule["reason"]}
    assert missing <= {"loss_recovered"}  # which the hardly trained network leaves undefined
    settled = {rule["name"]: rule.get("settled") for rule in gate["rules"] if rule.get("margin") is not None}
    assert len(settled) > 5
    assert None not in settled.values()
    assert not any("was not measured" in rule["reason"] for rule in gate["rules"])


def test_every_stage_shows_an_answer_and_its_figures(smoke: tuple[Done, dict[str, Done]]) -> None:
    for kind, done in [
        ("study.pipeline", smoke[0]),
        *((pipeline.STAGES[name], done) for name, done in smoke[1].items()),
    ]:
        shown = kinds.get(kind).panels(done.result or {})
        assert isinstance(shown[0], panels.Headline), kind
        assert len(shown) > 2, kind
        assert panels.PANELS.validate_json(panels.PANELS.dump_json(shown)) == shown


def test_the_transcoder_shows_its_intervals_above_each_chance_level(smoke: tuple[Done, dict[str, Done]]) -> None:
    above = kinds.get("stress.transcoder").panels(smoke[1]["transcoder"].result or {})[1]
    assert isinstance(above, panels.Intervals)
    assert len(above.rows) == 7
    assert all(row.estimate.low is not None for row in above.rows)


def test_the_gates_own_controls_are_told_apart(smoke: tuple[Done, dict[str, Done]]) -> None:
    test = (smoke[1]["gate"].result or {})["self_test"]
    assert test["passed"]
    assert test["good"]["low"] > 0.2
    assert test["bad"]["high"] < 0.1


@pytest.mark.parametrize(
    ("stage", "result", "named"),
    [
        ("transformer", {"test_accuracy": 0.1}, "test accuracy is 0.1"),
        ("transformer", {"leak": {"passed": False}}, "leak test passed is 0"),
        ("sae", {"members": [{"explained_variance": -2.64}]}, "lowest explained variance is -2.64"),
        ("sae", {"members": [{"explained_variance": 0.99}, {"explained_variance": 0.1}]}, "variance is 0.1"),
        ("sae", {"members": [{"explained_variance": float("nan")}]}, "variance is nan"),
    ],
)
def test_stages_that_ran_but_did_not_work_fail_the_study(
    smoke: tuple[Done, dict[str, Done]], tmp_path: Path, stage: str, result: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named):
        summarise(patched(smoke[1], stage, **result), tmp_path)


def test_floors_can_be_raised(smoke: tuple[Done, dict[str, Done]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the floor is 0\.9999"):
        summarise(smoke[1], tmp_path, min_explained_variance=0.9999)


def test_failed_stages_are_named_with_their_reasons(smoke: tuple[Done, dict[str, Done]], tmp_path: Path) -> None:
    done = {**smoke[1], "ood": Done("failed", "out of memory"), "gate": Done("cancelled", "needs ood")}
    with pytest.raises(UserError, match="ood: out of memory; gate: needs ood"):
        summarise(done, tmp_path)


def test_every_required_port_is_wired_to_a_stage_before_it() -> None:
    children = pipeline.plan(pipeline.Spec(), {}, {})
    for place, child in enumerate(children):
        ports = kinds.get(child.kind).inputs
        assert {name for name, port in ports.items() if port.required} <= set(child.inputs)
        kinds.get(child.kind).spec.model_validate(child.spec).check_ports(list(child.inputs))
        for reference in (reference for references in child.inputs.values() for reference in references):
            assert isinstance(reference, From)
            source = next(before for before in children[:place] if before.name == reference.child)
            assert reference.output in {*kinds.get(source.kind).outputs, "result"}
    assert pipeline.plan(pipeline.Spec(), {}, {"gate": Done("succeeded")}) == []


def test_overrides_change_fields_and_keep_the_rest() -> None:
    spec = pipeline.Spec(preset="smoke", transformer={"p": 17}, sae={"recipe": {"k": 4}})
    planned = {child.name: child.spec for child in pipeline.plan(spec, {}, {})}
    preset = pipeline.PRESETS["smoke"]
    assert planned["transformer"] == {**preset["transformer"], "p": 17}
    assert planned["sae"] == {**preset["sae"], "recipe": {**preset["sae"]["recipe"], "k": 4}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sae": {"seeds": [1, 1]}},
        {"transformer": {"modulus": 5}},
        {"transformer": {"dataset": "text"}},
        {"activations": {"source": "language"}},
        {"policy": "lenient", "policy_document": {"name": "lenient"}},
        {"preset": "huge"},
    ],
)
def test_a_stage_that_cannot_run_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        pipeline.Spec.model_validate(wrong)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"sae": {"recipe": {"kk": 2}}}, ("sae", "recipe", "kk")),
        ({"sae": {"variants": [{"kk": 2}]}}, ("sae", "variants", 0, "kk")),
        ({"preset": "smoke", "activations": {"colour": 1}}, ("activations", "colour")),
        ({"transformer": {"p": 2}}, ("transformer", "p")),
    ],
)
def test_a_wrong_field_of_a_stage_is_named_with_its_path(wrong: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        pipeline.Spec.model_validate(wrong)
    assert [error["loc"] for error in refused.value.errors()] == [path]


def test_demo_is_modulo_113_with_five_seeds() -> None:
    planned = {child.name: child for child in pipeline.plan(pipeline.Spec(), {}, {})}
    assert kinds.get("train.transformer").spec.model_validate(planned["transformer"].spec).model_dump()["p"] == 113
    assert len(planned["sae"].spec["seeds"]) == 5
    assert planned["gate"].inputs["candidate"] == [From("sae", "saes", 0)]
