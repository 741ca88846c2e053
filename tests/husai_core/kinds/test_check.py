"""`study.check` on the built-in language model and on a network for addition."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.job import Inputs
from husai_core.kinds import plan_estimate
from husai_core.kinds.common.measurements import CHECKED, INTERVENTION, STRESSES
from husai_core.kinds.kind import Done, From
from husai_core.kinds.study import check
from husai_core.local_job import LocalJob, LocalRunner, artifact_in
from tests.husai_core.kinds.stress_job import forged, network, run, siblings

HOOK = "blocks.1.hook_resid_post"
READ: dict[str, Any] = {"model": "classics-2m", "hook_name": HOOK, "context": 32}
RECIPE = {"architecture": "topk", "d_sae": 128, "k": 8, "tokens": 20_000, "batch_size": 256, "lr": 5e-3}
IMPORTED = {"imported": True, "hook_name": HOOK, "position": None, "converged": None, "drift_from_init": None}
SPEC = READ | {
    "max_rows": 2000,
    "max_sequences": 40,
    "intervention_latents": 3,
    "as_of": datetime.now(UTC).isoformat(),
}


@dataclass(frozen=True)
class World:
    """Imported SAEs on the built-in model, a text, and a runner that keeps what it computed."""

    runner: LocalRunner
    text: str
    shifted: str
    saes: list[str]

    def check(self, saes: list[str], shifted: bool = False, **spec: Any) -> tuple[check.Result, dict[str, Done]]:
        inputs = {"saes": saes, "text": [self.text]} | ({"shifted_text": [self.shifted]} if shifted else {})
        ended = self.runner.outcome("study.check", SPEC | spec, inputs)
        assert ended.state == "succeeded", ended.reason
        return check.Result.model_validate(ended.result), self.runner.children


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("check")
    (home / "text").mkdir()
    (home / "text" / "a.txt").write_text((assets.HELD_OUT / "lady-susan.md").read_text()[:24_000])
    text = artifact_in(home / "text", "upload")
    (home / "shifted").mkdir()
    (home / "shifted" / "b.txt").write_text(
        "".join(f"def f{i}(x):\n    return x[{i}] + {i * i}\n\n" for i in range(600))
    )
    shifted = artifact_in(home / "shifted", "upload")
    (rows,) = run("train.activations", home / "rows", READ | {"source": "language", "max_rows": 2000}, text=[text])[1]
    trained = siblings(home / "saes", rows, **RECIPE)
    runner = LocalRunner(home / "jobs", quiet=True)
    saes = [forged(sae, home / f"imported-{i}", **IMPORTED) for i, sae in enumerate(trained)]
    return World(
        runner, runner.keep(text, "upload"), runner.keep(shifted, "upload"), [runner.keep(sae, "sae") for sae in saes]
    )


def shown(result: check.Result) -> dict[str, panels.AnyPanel]:
    document = kinds.get("study.check").panels(result.model_dump(mode="json"))
    return {panel.title or panel.type: panel for panel in document}


def test_a_single_sae_is_measured_as_far_as_possible(world: World) -> None:
    result, done = world.check(world.saes[:1])
    assert set(done) == {"core", "features", "gate"}
    assert (result.verdict, result.candidate, result.policy) == ("inconclusive", world.saes[0], "own")
    assert [stage.name for stage in result.stages] == ["core", "features"]
    assert {missing.kind for missing in result.not_measured} == {CHECKED[name] for name in (*STRESSES, INTERVENTION)}
    assert all("without its siblings" in missing.reason for missing in result.not_measured)
    verdicts = {rule.name: rule.value for rule in result.rules}
    assert verdicts["loss_recovered"] is not None
    assert verdicts["stability"] is None
    missing = shown(result)["What could not be measured"]
    assert isinstance(missing, panels.Text)
    assert len(missing.paragraphs) == 2, "one reason is said once; an intervention takes no retrained siblings"
    assert all("It would take siblings" in paragraph for paragraph in missing.paragraphs)


def test_siblings_with_a_recipe_are_stressed_by_it(world: World) -> None:
    result, done = world.check(world.saes, shifted=True, recipe=RECIPE)
    assert done.keys() >= {"rows", "core", "retrained", "stability", "transcoder", "untrained", "gate"}
    stability = done["stability"].result
    assert stability is not None
    assert (stability["imported"], stability["subject"]) == (True, world.saes)
    rules = {rule.name: rule for rule in result.rules}
    assert rules["provenance"].provenance == "claimed"
    assert rules["stability"].low is not None
    assert rules["stability"].evidence_digest == done["stability"].outputs["result"][0]
    assert rules["loss_recovered"].evidence_digest == done["core"].outputs["result"][0]
    assert rules["untrained_model"].evidence_digest == done["untrained"].outputs["result"][0]
    untrained = done["untrained"].result
    assert untrained is not None
    assert [net["mode"] for net in untrained["networks"]] == ["all", "keep_embeddings"]
    assert result.not_measured == []
    assert rules["ood.reconstruction"].evidence_digest == done["ood"].outputs["result"][0]
    transcoder = done["transcoder"].result
    assert transcoder is not None
    assert (transcoder["input_hook"], transcoder["output_hook"]) == ("blocks.1.ln2.hook_out", "blocks.1.hook_mlp_out")
    assert rules["transcoder"].evidence_digest == done["transcoder"].outputs["result"][0]
    intervention = done["intervention"].result
    assert intervention is not None
    assert intervention["latents_per_seed"] == [3, 3, 3]
    assert intervention["statistics"]["ablation_cosine_excess"]["low"] is not None
    panel = shown(result)
    bars = panel["Rules against their bars"]
    assert isinstance(bars, panels.Intervals)
    assert {row.label for row in bars.rows} == {rule.name for rule in result.rules if rule.value is not None} - {
        "provenance"
    }
    assert isinstance(panel["headline"], panels.Headline)
    assert "3 SAEs were retrained here by the claimed recipe" in panel["headline"].text
    claim = panel["The claimed recipe, checked"]
    assert isinstance(claim, panels.Table)
    assert len(claim.rows) == 3
    assert {done[name].result["recipe_check"]["agrees"] for name in STRESSES} == {rules["stability"].comparable}  # type: ignore[index]


@pytest.mark.parametrize("said", ["by their user", "by their files"])
def test_a_single_sae_with_a_recipe_is_judged_like_siblings(world: World, said: str, tmp_path: Path) -> None:
    saes, spec = world.saes[:1], {"recipe": RECIPE}
    if said == "by their files":
        claiming = forged(world.runner.artifacts[saes[0]], tmp_path / "claiming", claimed_recipe=RECIPE)
        saes, spec = [world.runner.keep(claiming, "sae")], {}
    result, done = world.check(saes, shifted=True, **spec)
    assert [missing.kind for missing in result.not_measured] == ["stress.intervention"]
    assert [stage.name for stage in result.stages] == [name for name in CHECKED if name != INTERVENTION]
    assert len(done["retrained"].outputs["saes"]) == 4
    rules = {rule.name: rule for rule in result.rules}
    assert all(rule.low is not None for rule in result.rules if not rule.accepts)
    assert rules["stability"].change is not None
    stability = done["stability"].result
    assert stability is not None
    assert (stability["subject"], len(stability["seeds"])) == (saes, 5)
    assert result.recipe_check is not None
    assert result.recipe_check.retrained == done["retrained"].outputs["saes"]


def test_a_spec_can_be_asked_about_before_there_are_saes() -> None:
    for recipe in ({}, {"recipe": RECIPE}):
        planned = plan_estimate.jobs("study.check", {"model": "classics-2m", **recipe}, {})
        assert {job.path for job in planned.jobs} >= {"core", "features"}


def test_where_retraining_fails_the_rest_is_measured_and_judged() -> None:
    spec = check.Spec.model_validate(SPEC | {"recipe": RECIPE})
    first = check.plan(spec, {"saes": ["a"]}, {})
    assert [child.name for child in first] == ["rows", "retrained", "core", "features"]
    done = {"rows": Done("succeeded"), "core": Done("succeeded"), "retrained": Done("failed", "it diverged")}
    (gate,) = check.plan(spec, {"saes": ["a"]}, done)
    assert gate.name == "gate"
    siblings = {child.name: child for child in check.plan(spec, {"saes": ["a", "b", "c"]}, done)}
    assert "retrained" not in siblings["stability"].inputs
    assert "activations" not in siblings["transcoder"].inputs


def test_a_stress_that_fails_is_a_reason_and_not_the_end(world: World) -> None:
    result, done = world.check(world.saes)
    assert done["stability"].state == "failed"
    failed = next(missing for missing in result.not_measured if missing.kind == "stress.trained_vs_random")
    assert "set recipe to what is known of it" in failed.reason
    assert result.rules, "the policy judges what was measured"
    assert [stage.name for stage in result.stages] == ["core", "features", "intervention"]


def test_all_stresses_are_measured_on_a_network_for_addition(world: World, tmp_path: Path) -> None:
    transformer = network(tmp_path / "network")
    (rows,) = run("train.activations", tmp_path / "rows", {}, transformer=[transformer])[1]
    bound = {"saes": siblings(tmp_path / "saes", rows), "transformer": [transformer], "activations": [rows]}
    inputs = {port: [world.runner.keep(a, a.type) for a in artifacts] for port, artifacts in bound.items()}
    ended = world.runner.outcome(
        "study.check", {"source": "model", "intervention_latents": 4, "as_of": SPEC["as_of"]}, inputs
    )
    assert ended.state == "succeeded", ended.reason
    result = check.Result.model_validate(ended.result)
    assert [stage.name for stage in result.stages] == list(CHECKED)
    assert result.not_measured == []
    assert {rule.provenance for rule in result.rules if rule.accepts} == {"trained here"}


def facts(**husai: Any) -> dict[str, Any]:
    sae = {"architecture": "topk", "d_in": 128, "d_sae": 128, "k": 8, "apply_b_dec_to_input": True}
    return {"saes": [sae | {"husai": IMPORTED | husai}] * 3}


@pytest.mark.parametrize(
    ("husai", "spec", "message"),
    [
        ({}, {"recipe": RECIPE | {"k": 4}}, "a recipe with k 4 does not make the SAEs"),
        ({"hook_name": "blocks.0.hook_resid_post"}, {}, "the SAEs read hook_name 'blocks.0"),
        ({"imported": False}, {}, "core: the SAEs were trained here"),
        ({}, {"hook_name": None}, "set hook_name"),
        ({"hook_name": "unknown"}, {"hook_name": None}, "nothing says at which hook the SAEs read"),
        ({"hook_name": "blocks.7.hook_resid_post"}, {"hook_name": None}, "no hook 'blocks.7.hook_resid_post'"),
        ({"hook_name": None}, {"hook_name": "blocks.1.mlp.hook_post"}, "width 128, but these have width 512"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    husai: dict[str, Any], spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_estimate.jobs("study.check", SPEC | spec, facts(**husai))


def test_later_rounds_are_estimated_and_an_unknown_recipe_does_not_refuse_the_check() -> None:
    planned = plan_estimate.jobs("study.check", SPEC | {"recipe": RECIPE}, facts())
    assert {job.path for job in planned.jobs} >= {"rows", "core", "stability", "rows-untrained-all", "untrained"}
    assert "gate/good-saes" in {job.path for job in planned.jobs}
    assert plan_estimate.jobs("study.check", SPEC, facts()).more


def test_what_is_trained_by_a_recipe_that_files_claim_is_estimated_too() -> None:
    claiming = facts(claimed_recipe=RECIPE)
    for saes, count in ((claiming["saes"][:1], 4), (claiming["saes"], 3)):
        jobs = {job.path: job for job in plan_estimate.jobs("study.check", SPEC, {"saes": saes}).jobs}
        assert jobs.keys() >= {"rows", "core", "retrained", "stability", "transcoder", "untrained"}
        assert jobs["retrained"].work.outputs["saes"]["count"] == count
    longer = facts(claimed_recipe=RECIPE | {"tokens": 200_000})
    units = [
        next(job.work.units for job in plan_estimate.jobs("study.check", SPEC, of).jobs if job.path == "retrained")
        for of in (claiming, longer)
    ]
    assert units[1] > 5 * units[0], "rows are read again as often as the claimed tokens need"


@pytest.mark.parametrize(
    ("spec", "bound"),
    [
        ({}, ["saes"]),
        ({"model": "classics-2m"}, ["saes", "transformer"]),
        ({"source": "model"}, ["saes", "transformer"]),
    ],
)
def test_one_network_is_needed(spec: dict[str, Any], bound: list[str]) -> None:
    with pytest.raises(UserError):
        check.Spec.model_validate(spec).check_ports(bound)


def test_a_policy_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(ValidationError):
        check.Spec.model_validate({"policy": "lenient", "policy_document": {"name": "lenient"}})


def test_where_nothing_could_be_measured_no_policy_is_asked() -> None:
    spec, inputs = check.Spec.model_validate(SPEC), {"saes": ["a"]}
    done = {"core": Done("failed", "only 0 of 1 sequences of the text were held out from training; give other text")}
    assert check.plan(spec, inputs, done) == []
    with pytest.raises(UserError, match="no policy was asked: core: only 0 of 1 sequences"):
        check.summarise(spec, Inputs({"saes": []}), done, LocalJob(Path("nowhere"), quiet=True))


def test_rows_that_fail_leave_the_verdict_to_the_rest(tmp_path: Path) -> None:
    spec, inputs = check.Spec.model_validate(SPEC), {"saes": ["a", "b"]}
    done = {"rows": Done("failed", "out of memory"), "core": Done("succeeded")}
    (gate,) = check.plan(spec, inputs, done)
    assert (gate.kind, gate.inputs["evidence"]) == ("release.gate", [From("core", "result")])
    done = {"rows": Done("succeeded"), "core": Done("succeeded")}
    stability, *others = check.plan(spec, inputs, done)
    behind = {
        child.name: [name for name in (c.name for c in others) if name.startswith(f"rows-{child.name}")]
        for child in others
    }
    assert behind["transcoder"] == ["rows-transcoder"]
    assert behind["untrained"] == ["rows-untrained-all", "rows-untrained-keep_embeddings"]
    assert behind["ood"] == [f"rows-ood-{domain}" for domain in assets.DOMAINS], "where no text is given"
    assert stability.inputs == {"saes": ["a", "b"], "activations": [From("rows", "activations")]}
    with pytest.raises(UserError, match="the gate made no decision: it broke"):
        check.summarise(spec, Inputs({}), {"gate": Done("failed", "it broke")}, LocalJob(tmp_path))


def test_a_hook_outside_the_layers_has_no_transcoder_to_compare_with() -> None:
    spec = check.Spec.model_validate(SPEC | {"hook_name": "hook_embed"})
    done = {"rows": Done("succeeded"), "core": Done("succeeded")}
    assert "transcoder" not in {child.name for child in check.plan(spec, {"saes": ["a", "b"]}, done)}
