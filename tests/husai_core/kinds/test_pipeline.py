from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.job import Inputs
from husai_core.kinds.kind import Done, From
from husai_core.kinds.study import pipeline
from husai_core.local_job import LocalJob, LocalRunner

AS_OF = datetime.now(UTC).isoformat()
SMOKE = pipeline.Spec(preset="smoke", policy="strict", as_of=AS_OF)
LANGUAGE = pipeline.Spec(
    preset="language",
    activations={"context": 32, "max_rows": 3000},
    sae={"recipe": {"d_sae": 32, "k": 4, "tokens": 30_000, "batch_size": 128}, "seeds": [0, 1, 2]},
    min_explained_variance=0.2,
    as_of=AS_OF,
)
"""The language form at its smallest."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both pipelines run, so that the gate's controls are measured once."""
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def smoke(folder: Path) -> tuple[Done, dict[str, Done]]:
    """The whole smoke pipeline, run once: its outcome and its stages."""
    return ended(folder, SMOKE)


@pytest.fixture(scope="module")
def language(folder: Path) -> tuple[Done, dict[str, Done]]:
    """The language pipeline at its smallest, run once: its outcome and its jobs."""
    return ended(folder, LANGUAGE)


def ended(folder: Path, spec: pipeline.Spec) -> tuple[Done, dict[str, Done]]:
    runner = LocalRunner(folder)
    outcome = runner.outcome("study.pipeline", spec.model_dump(), {})
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
    measured = {done[stage].outputs["result"][0] for stage in pipeline.MEASURED if stage != "features"}
    assert read == measured, "no rule is about single features"
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


def test_the_language_pipeline_measures_all_that_the_policy_reads(language: tuple[Done, dict[str, Done]]) -> None:
    outcome, done = language
    result = pipeline.Result.model_validate(outcome.result)
    assert [stage.name for stage in result.stages] == [name for name in pipeline.STAGES if name != "transformer"]
    assert result.candidate == done["sae"].outputs["saes"][0]
    rules = {rule.name: rule for rule in result.rules}
    digests = {name: done[name].outputs["result"][0] for name in pipeline.MEASURED}
    assert {rule.evidence_digest for rule in rules.values()} <= set(digests.values())
    assert rules["ood.reconstruction"].evidence_digest == digests["ood"]
    assert rules["loss_recovered"].evidence_digest == digests["core"]
    assert rules["provenance"].provenance == "trained here"
    assert all(
        rule.settled is not None for rule in rules.values() if rule.margin is not None and rule.value is not None
    )
    transcoder, untrained, features = (done[name].result or {} for name in ("transcoder", "untrained", "features"))
    assert transcoder["input_hook"] == "blocks.1.ln2.hook_out"
    assert [network["mode"] for network in untrained["networks"]] == ["all", "keep_embeddings"]
    assert len(features["shown"]) == 32


def test_other_domains_are_read_where_nothing_else_is_given(language: tuple[Done, dict[str, Done]]) -> None:
    ood = language[1]["ood"].result or {}
    shifted = [language[1][f"rows-ood-{domain}"].outputs["activations"][0] for domain in assets.DOMAINS]
    assert [text["digest"] for text in ood["texts"]][1:] == shifted
    assert len(set(shifted)) == len(assets.DOMAINS)


def test_its_page_shows_the_rules_and_its_report_the_features(language: tuple[Done, dict[str, Done]]) -> None:
    shown = {panel.title or panel.type: panel for panel in kinds.get("study.pipeline").panels(language[0].result or {})}
    assert {"Rules", "Rules against their bars", "Stages", "Floors of quality"} <= shown.keys()
    stages = shown["Stages"]
    assert isinstance(stages, panels.Table)
    figures = {row[0]: str(row[3]) for row in stages.rows}
    assert "loss recovered" in figures["core"], "the figures that rules read"
    assert "converged" not in figures["stability"]
    reasons = shown["Why the gate says so"]
    assert isinstance(reasons, panels.Text)
    assert any("To decide it: " in line for line in reasons.paragraphs)
    of_features = kinds.get("benchmark.features").panels(language[1]["features"].result or {})
    assert any(isinstance(panel, panels.FeatureCard) for panel in of_features)


@pytest.mark.parametrize("preset", list(pipeline.PRESETS))
def test_every_required_port_is_wired_to_a_stage_before_it(preset: str) -> None:
    children = pipeline.plan(pipeline.Spec.model_validate({"preset": preset}), {}, {})
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
        {"preset": "modular", "transformer": {"modulus": 5}},
        {"preset": "modular", "transformer": {"dataset": "text"}},
        {"preset": "modular", "activations": {"source": "language"}},
        {"transformer": {"p": 17}},
        {"min_test_accuracy": 0.5},
        {"activations": {"source": "synthetic"}},
        {"activations": {"hook_names": ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]}},
        {"activations": {"hook_name": "hook_embed"}},
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
        ({"preset": "modular", "transformer": {"p": 2}}, ("transformer", "p")),
    ],
)
def test_a_wrong_field_of_a_stage_is_named_with_its_path(wrong: dict[str, Any], path: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        pipeline.Spec.model_validate(wrong)
    assert [error["loc"] for error in refused.value.errors()] == [path]


def test_modular_is_modulo_113_with_five_seeds() -> None:
    planned = {child.name: child for child in pipeline.plan(pipeline.Spec(preset="modular"), {}, {})}
    assert kinds.get("train.transformer").spec.model_validate(planned["transformer"].spec).model_dump()["p"] == 113
    assert len(planned["sae"].spec["seeds"]) == 5
    assert planned["gate"].inputs["candidate"] == [From("sae", "saes", 0)]


def test_the_language_model_is_read_at_the_hook_and_around_its_mlp_at_once() -> None:
    spec = pipeline.Spec(activations={"hook_name": "blocks.2.hook_resid_post"})
    planned = {child.name: child for child in pipeline.plan(spec, {}, {})}
    hooks = ["blocks.2.hook_resid_post", "blocks.2.ln2.hook_out", "blocks.2.hook_mlp_out"]
    assert planned["activations"].spec["hook_names"] == hooks
    assert planned["sae"].inputs == {"activations": [From("activations", "activations", 0)]}
    assert planned["transcoder"].inputs["mlp_output"] == [From("activations", "activations", 2)]
    assert {planned[f"rows-ood-{domain}"].spec["hook_name"] for domain in assets.DOMAINS} == {
        "blocks.2.hook_resid_post"
    }
    assert planned["gate"].spec["policy"] == "internal"
