"""Stresses of SAEs that were trained elsewhere: their recipe is what their user says, or else their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.release.judge import judge_result, read_evidence
from husai_core.release.policy import load as load_policy
from tests.husai_core.kinds.stress_job import RECIPE, forged, network, run, siblings, stress
from tests.husai_core.release.make import recipe_check, statistics_of

SHORT = RECIPE | {"tokens": 5_000}
NEEDS = {
    "stress.trained_vs_random": ("activations",),
    "stress.transcoder": ("transformer",),
    "stress.ood": ("transformer",),
    "stress.untrained_model": ("activations", "transformer"),
}


@dataclass(frozen=True)
class World:
    """A network, rows at its answer position, SAEs on them, and the same SAEs as they come back from files."""

    inputs: dict[str, list[Artifact]]
    trained: list[Artifact]
    imported: list[Artifact]

    def stress(self, kind: str, home: Path, saes: list[Artifact], **spec: Any) -> Evidence:
        return stress(kind, home, spec, saes=saes, **{name: self.inputs[name] for name in NEEDS[kind]})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("world")
    model = network(home / "network")
    rows = run("train.activations", home / "rows", {}, transformer=[model])[1][0]
    trained = siblings(home / "saes", rows, tokens=SHORT["tokens"])
    uploads = [Artifact(sae.digest, "upload", sae.path, [0.0]) for sae in trained]
    imported = [run("data.import", home / f"in{i}", {}, file=[sae])[1][0] for i, sae in enumerate(uploads)]
    return World({"transformer": [model], "activations": [rows]}, trained, imported)


@pytest.mark.parametrize("kind", NEEDS)
def test_the_right_recipe_finds_what_it_finds_of_saes_trained_here(world: World, kind: str, tmp_path: Path) -> None:
    of_trained = world.stress(kind, tmp_path / "own", world.trained)
    of_imported = world.stress(kind, tmp_path / "found", world.imported, recipe=SHORT)
    assert of_trained.statistics.keys() - of_imported.statistics.keys() <= {"drift_from_init"}
    assert {name: figure.value for name, figure in of_imported.statistics.items()} == {
        name: of_trained.statistics[name].value for name in of_imported.statistics
    }
    assert of_imported.subject == [sae.digest for sae in world.imported]
    assert {name: change.value for name, change in of_imported.changes.items()} == {
        name: of_trained.changes[name].value for name in of_imported.changes
    }
    assert of_trained.changes.keys() == of_imported.changes.keys() != set()
    assert (of_imported.converged, of_imported.imported, of_trained.imported) == (False, True, False)
    assert (of_imported.provenance, of_imported.retrained) == ("claimed", True)


def test_without_their_halves_only_what_is_trained_here_has_a_change(world: World, tmp_path: Path) -> None:
    saes = moved(world.imported, tmp_path / "whole")
    overlap = world.stress("stress.trained_vs_random", tmp_path / "a", saes, recipe=SHORT)
    assert {name for name in overlap.changes if not name.endswith("_null")} == set()
    asked = [
        rule
        for rule in statistics_of(load_policy("own"))
        if rule.evidence == "stress.trained_vs_random" and rule.margin
    ]
    read = read_evidence(json.loads(overlap.model_copy(update={"recipe_check": recipe_check()}).model_dump_json()))
    judged = [judge_result(load_policy("own"), rule, read) for rule in asked]
    assert {outcome.verdict for outcome in judged} == {"inconclusive"}, "deleting halves meets no rule"
    assert all("half/ beside its weights" in (outcome.settle or "") for outcome in judged)
    refitted = world.stress("stress.ood", tmp_path / "b", saes, recipe=SHORT)
    assert refitted.statistics.keys() - refitted.changes.keys() == {"candidate_explained_variance_ood"}


@pytest.mark.parametrize(
    ("kind", "figure"),
    [("stress.trained_vs_random", "pwmcc_excess"), ("stress.untrained_model", "trained_minus_untrained")],
)
def test_their_order_says_nothing_so_no_seed_is_shared(world: World, kind: str, figure: str, tmp_path: Path) -> None:
    orders = world.imported, world.imported[::-1]
    forwards, backwards = (
        world.stress(kind, tmp_path / str(i), saes, recipe=SHORT).statistics[figure] for i, saes in enumerate(orders)
    )
    assert forwards.low is not None
    assert (forwards.low, forwards.high) == pytest.approx((backwards.low, backwards.high), rel=1e-6)


@pytest.mark.parametrize(("name", "verdict"), [("strict", "fail"), ("internal", "fail"), ("own", "pass")])
def test_their_provenance_is_judged_by_a_rule_of_its_own(world: World, name: str, verdict: str, tmp_path: Path) -> None:
    evidence = world.stress("stress.trained_vs_random", tmp_path / "found", world.imported, recipe=SHORT)
    policy, read = load_policy(name), read_evidence(json.loads(evidence.model_dump_json()))
    rules = {rule.name: rule for rule in policy.rules}
    assert judge_result(policy, rules["provenance"], read).verdict == verdict
    assert "imported" not in judge_result(policy, rules["stability"], read).reason


WRONG: dict[str, tuple[dict[str, Any] | None, str]] = {
    "other width": (SHORT | {"d_sae": 64}, "d_sae 64 does not make the SAEs, whose d_sae is 48"),
    "other k": (SHORT | {"k": 5}, "k 5 does not make"),
    "other architecture": (SHORT | {"architecture": "batchtopk"}, "architecture jumprelu does not make"),
}


@pytest.mark.parametrize(("recipe", "message"), WRONG.values(), ids=WRONG)
def test_a_recipe_that_cannot_have_made_them_is_refused(
    world: World, recipe: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        world.stress("stress.ood", tmp_path, world.imported, recipe=recipe)


def test_without_a_recipe_that_of_their_files_is_taken(world: World, tmp_path: Path) -> None:
    of_files = world.stress("stress.trained_vs_random", tmp_path / "files", world.imported)
    of_user = world.stress("stress.trained_vs_random", tmp_path / "user", world.imported, recipe=SHORT)
    assert of_files.statistics == of_user.statistics
    assert (of_files.converged, of_files.imported) == (False, True)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ([{"claimed_recipe": {}}] * 3, "do not say architecture, d_sae, tokens, batch_size, lr of their training; set"),
        (
            [{"claimed_recipe": {"architecture": "topk", "d_sae": 64, "k": 4}}] * 3,
            "do not say tokens, batch_size, lr of",
        ),
        ([{}, {"claimed_recipe": {"architecture": "topk"}}, {}], "say different things of their training; set recipe"),
        ([{}, {}, {"claimed_step": 60}], "say different things of their training; set recipe"),
    ],
)
def test_files_that_say_too_little_or_different_things_are_no_recipe(
    world: World, claims: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    saes = [forged(sae, tmp_path / str(i), **claims[i]) for i, sae in enumerate(world.imported)]
    with pytest.raises(UserError, match=message):
        world.stress("stress.ood", tmp_path, saes)


def test_saes_trained_here_take_no_recipe_and_no_imported_siblings(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="these say how they were trained"):
        world.stress("stress.ood", tmp_path, world.trained, recipe=SHORT)
    with pytest.raises(UserError, match="was imported, others were trained here"):
        world.stress("stress.ood", tmp_path, [*world.trained[:2], world.imported[2]], recipe=SHORT)
    weights = load_file(world.imported[0].path / "sae_weights.safetensors")
    order = torch.randperm(RECIPE["d_sae"], generator=torch.Generator().manual_seed(0))
    other = {name: (2 * value if name == "W_dec" else value).half() for name, value in weights.items()}
    other |= {"W_enc": other["W_enc"][:, order], "b_enc": other["b_enc"][order], "W_dec": other["W_dec"][order]}
    (copy,) = moved(world.imported[:1], tmp_path / "copy")
    save_file({name: value.contiguous() for name, value in other.items()}, copy.path / "sae_weights.safetensors")
    with pytest.raises(UserError, match="same decoder weights"):
        world.stress("stress.ood", tmp_path, [world.imported[0], copy], recipe=SHORT)


def moved(saes: list[Artifact], home: Path, **provenance: object) -> list[Artifact]:
    return [forged(sae, Path(f"{home}-{i}"), **provenance) for i, sae in enumerate(saes)]


def test_they_must_be_able_to_read_what_they_are_tested_on(world: World, tmp_path: Path) -> None:
    overlap, shift = "stress.trained_vs_random", "stress.ood"
    elsewhere = moved(world.imported, tmp_path / "elsewhere", position="bos")
    with pytest.raises(UserError, match="read position 'bos', but the activations are of 'answer'"):
        world.stress(overlap, tmp_path / "a", elsewhere, recipe=SHORT)
    unknown = moved(world.imported, tmp_path / "unknown", position=None)
    with pytest.raises(UserError, match="do not say at which hook_name and position"):
        world.stress(shift, tmp_path / "b", unknown, recipe=SHORT)
    strange = moved(world.imported, tmp_path / "strange", position="somewhere")
    with pytest.raises(UserError, match="do not say at which hook_name and position"):
        world.stress(shift, tmp_path / "c", strange, recipe=SHORT)
    wide = moved(world.imported, tmp_path / "wide", hook_name="blocks.0.mlp.hook_post")
    with pytest.raises(UserError, match="read rows of width 32, but these have width 64"):
        world.stress(shift, tmp_path / "d", wide, recipe=SHORT)
    with pytest.raises(UserError, match="read rows of width 32, but these have width 64"):
        world.stress("stress.transcoder", tmp_path / "f", wide, recipe=SHORT)
    leaky = moved(world.imported, tmp_path / "leaky", claimed={"position": "answer_token"})
    assert world.stress(overlap, tmp_path / "g", leaky, recipe=SHORT).leaks_label
    world.stress(overlap, tmp_path / "e", unknown, recipe=SHORT)


def test_another_network_or_width_is_refused(world: World, tmp_path: Path) -> None:
    spec = {"source": "synthetic", "world": {"rows": 400, "n_features": 24, "d_model": 12, "active": 2}}
    (narrow,) = run("train.activations", tmp_path / "narrow", spec)[1]
    with pytest.raises(UserError, match="read rows of width 32, but these have width 12"):
        stress("stress.trained_vs_random", tmp_path, {"recipe": SHORT}, saes=world.imported, activations=[narrow])
    inputs = world.inputs | {"transformer": [network(tmp_path / "other", seed=1)]}
    with pytest.raises(UserError, match="not of this transformer"):
        stress("stress.untrained_model", tmp_path, {"recipe": SHORT}, saes=world.imported, **inputs)


def test_signed_latents_and_fields_that_nothing_reads_are_refused(world: World, tmp_path: Path) -> None:
    saes = moved(world.imported, tmp_path / "signed")
    for sae in saes:
        cfg = json.loads((sae.path / "cfg.json").read_bytes())
        (sae.path / "cfg.json").write_text(json.dumps(cfg | {"architecture": "husai_signed_topk"}))
    with pytest.raises(UserError, match="keep negative latents"):
        world.stress("stress.ood", tmp_path, saes, recipe=SHORT)
    with pytest.raises(ValueError, match=r"recipe\.bandwidth: not read by a topk SAE"):
        world.stress("stress.ood", tmp_path, world.imported, recipe=SHORT | {"bandwidth": 5.0})
