"""Imported SAEs beside such as were trained here by their claimed recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from husai_core import kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.stress.trained_vs_random import Result
from husai_core.release.judge import Judged, judge_result, read_evidence
from husai_core.release.policy import load as load_policy
from tests.husai_core.kinds.stress_job import RECIPE, forged, network, run, siblings, stress
from tests.husai_core.release.make import statistics_of

SHORT = RECIPE | {"tokens": 20_000}
HERE = (1000, 1001, 1002, 1003)
OVERLAP = "stress.trained_vs_random"
NEEDS = {
    OVERLAP: ("activations",),
    "stress.transcoder": ("transformer", "activations"),
    "stress.ood": ("transformer", "activations"),
    "stress.untrained_model": ("activations", "transformer"),
}


@dataclass(frozen=True)
class World:
    """A network and rows of it, SAEs that came back from files without their halves, and retrained ones."""

    inputs: dict[str, list[Artifact]]
    imported: list[Artifact]
    retrained: list[Artifact]

    def stress(self, kind: str, home: Path, saes: list[Artifact], **more: Any) -> Evidence:
        spec = {"recipe": more.pop("recipe")} if "recipe" in more else {}
        bound = {"saes": saes, **{name: self.inputs[name] for name in NEEDS[kind]}, **more}
        return stress(kind, home, spec, **bound)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("retrained")
    model = network(home / "network")
    (rows,) = run("train.activations", home / "rows", {}, transformer=[model])[1]
    uploads = [
        forged(Artifact(sae.digest, "upload", sae.path, [0.0]), home / f"file{place}")
        for place, sae in enumerate(siblings(home / "saes", rows, tokens=SHORT["tokens"]))
    ]
    imported = [run("data.import", home / f"in{i}", {}, file=[sae])[1][0] for i, sae in enumerate(uploads)]
    retrained = siblings(home / "here", rows, HERE, tokens=SHORT["tokens"])
    return World({"transformer": [model], "activations": [rows]}, imported, retrained)


@pytest.mark.parametrize("kind", NEEDS)
def test_the_last_doubling_is_that_of_the_retrained_saes_paired_with_their_controls(
    world: World, kind: str, tmp_path: Path
) -> None:
    of_imported = world.stress(kind, tmp_path / "imported", world.imported, retrained=world.retrained)
    alone = world if kind != "stress.ood" else replace(world, inputs={**world.inputs, "activations": []})
    of_retrained = alone.stress(kind, tmp_path / "here", world.retrained)
    assert of_imported.changes == of_retrained.changes != {}
    assert (of_imported.provenance, of_imported.retrained) == ("claimed", True)
    assert of_imported.subject == [sae.digest for sae in world.imported]
    check = of_imported.recipe_check
    assert check is not None
    assert check.retrained == [sae.digest for sae in world.retrained]
    assert of_retrained.recipe_check is None
    if kind == OVERLAP:
        reconstruction = of_retrained.statistics["explained_variance"]
        imported = of_imported.statistics["explained_variance"]
        assert imported.value != reconstruction.value, "figures are those of the imported SAEs"
        assert check.figures["explained_variance"].retrained.value == pytest.approx(reconstruction.value)


def test_halves_of_their_own_come_first(world: World, tmp_path: Path) -> None:
    whole = siblings(tmp_path / "saes", world.inputs["activations"][0], tokens=SHORT["tokens"])
    uploads = [Artifact(sae.digest, "upload", sae.path, [0.0]) for sae in whole]
    saes = [run("data.import", tmp_path / f"in{i}", {}, file=[sae])[1][0] for i, sae in enumerate(uploads)]
    without = world.stress(OVERLAP, tmp_path / "without", saes)
    beside = world.stress(OVERLAP, tmp_path / "beside", saes, retrained=world.retrained)
    name = "explained_variance"
    assert beside.changes[name] == without.changes[name]
    assert beside.recipe_check is not None


def test_a_single_sae_is_measured_together_with_its_retrained_siblings(world: World, tmp_path: Path) -> None:
    measured = world.stress(OVERLAP, tmp_path / "one", world.imported[:1], retrained=world.retrained)
    assert isinstance(measured, Result)
    assert (measured.subject, measured.seeds) == ([world.imported[0].digest], [0, 1, 2, 3, 4])
    assert len(measured.members) == 5
    assert measured.recipe_check is not None
    assert measured.recipe_check.agrees == "yes"
    assert measured.statistics["pwmcc_excess"].low is not None
    assert measured.changes["pwmcc_excess"].low is not None
    assert [member.seed for member in measured.controls["shuffled"].members] == list(HERE)
    shown = kinds.get(OVERLAP).panels(measured.model_dump(mode="json"))
    table = next(panel for panel in shown if panel.title == "Every SAE, and every control")
    assert isinstance(table, panels.Table)
    assert [row[0] for row in table.rows][:5] == ["SAEs"] + ["SAEs retrained here"] * 4
    check = next(panel for panel in shown if panel.title == "The claimed recipe, checked")
    assert isinstance(check, panels.Table)
    assert [row[0] for row in check.rows] == ["explained variance", "L0", "overlap of seeds (PWMCC)"]


def judged(evidence: Evidence) -> list[Judged]:
    """What `own` makes of every figure of the stress that rests on trainings."""
    policy, read = load_policy("own"), read_evidence(json.loads(evidence.model_dump_json()))
    asked = [rule for rule in statistics_of(policy) if rule.evidence == OVERLAP and rule.margin]
    return [judge_result(policy, rule, read) for rule in asked]


def test_an_honest_recipe_lets_rules_about_trainings_be_judged(world: World, tmp_path: Path) -> None:
    evidence = world.stress(OVERLAP, tmp_path / "in", world.imported, retrained=world.retrained)
    assert evidence.recipe_check is not None
    assert evidence.recipe_check.agrees == "yes", evidence.recipe_check.figures
    assert not any("claimed recipe" in outcome.reason for outcome in judged(evidence))


@pytest.mark.parametrize("count", [1, 3])
def test_an_understated_recipe_leaves_rules_about_trainings_undecided_and_names_what_differs(
    world: World, count: int, tmp_path: Path
) -> None:
    understated = SHORT | {"tokens": SHORT["tokens"] // 4}
    rows = world.inputs["activations"][0]
    retrained = siblings(tmp_path / "saes", rows, HERE, tokens=understated["tokens"])
    saes = world.imported[:count]
    evidence = world.stress(OVERLAP, tmp_path / "in", saes, retrained=retrained, recipe=understated)
    assert evidence.recipe_check is not None
    assert evidence.recipe_check.agrees == "no"
    assert {outcome.verdict for outcome in judged(evidence)} == {"inconclusive"}
    assert all("makes other SAEs here" in outcome.reason for outcome in judged(evidence))
    assert all("explained variance" in outcome.reason for outcome in judged(evidence))


def test_what_was_not_trained_here_by_the_claim_is_refused(world: World, tmp_path: Path) -> None:
    def refused(message: str, saes: list[Artifact], retrained: list[Artifact], kind: str = OVERLAP) -> None:
        with pytest.raises(UserError, match=message):
            world.stress(kind, tmp_path / "refused", saes, retrained=retrained)

    rows = world.inputs["activations"][0]
    refused("retrained is for imported SAEs", world.retrained, world.retrained)
    refused("and these were imported", world.imported[:1], world.imported[1:])
    refused("at least 2 SAEs of different seeds, not 1", world.imported, world.retrained[:1])
    refused("seeds are compared, and this is one SAE", world.imported[:1], [])
    shorter = siblings(tmp_path / "shorter", rows, HERE, tokens=5_000)
    refused("retrained number 0 has tokens 5000, but the claimed recipe has 20000", world.imported, shorter)
    (other,) = run("train.activations", tmp_path / "rows", {"seed": 1}, transformer=world.inputs["transformer"])[1]
    elsewhere = siblings(tmp_path / "elsewhere", other, HERE, tokens=SHORT["tokens"])
    refused("not trained on this activations artifact", world.imported, elsewhere)
    twice = [forged(sae, tmp_path / f"twice{place}") for place, sae in enumerate(world.imported[:1])]
    same = siblings(tmp_path / "same", rows, (0, 1, 2), tokens=SHORT["tokens"])
    refused("one of the imported SAEs is among the retrained ones", twice, same)
    with pytest.raises(UserError, match="give the activations, too"):
        kinds.get("stress.transcoder").spec.model_validate({}).check_ports(["saes", "retrained", "transformer"])


def test_facts_of_what_does_not_exist_yet_refuse_nothing(world: World) -> None:
    spec = kinds.get(OVERLAP).spec.model_validate({})
    cfg = json.loads((world.imported[0].path / "cfg.json").read_bytes())
    foretold = {"d_in": cfg["d_in"], "d_sae": cfg["d_sae"], "husai": {"recipe": SHORT}}
    spec.check_facts({"saes": [cfg], "retrained": [foretold] * 3})
    spec.check_facts({"saes": [{}]})
    with pytest.raises(UserError, match="at least 2"):
        spec.check_facts({"saes": [cfg], "retrained": [foretold]})
    with pytest.raises(UserError, match="this is one SAE"):
        spec.check_facts({"saes": [cfg]})
