from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from husai_core import kinds
from husai_core.activations import store
from husai_core.activations.rows import StoredRows
from husai_core.errors import UserError
from husai_core.identity import canonical
from husai_core.job import Artifact, Inputs
from husai_core.kinds.common import training
from husai_core.kinds.train import sae as kind
from husai_core.local_job import LocalJob, artifact_in
from husai_core.saes import checkpoint
from husai_core.saes.evaluate import evaluate
from husai_core.stability.intervals import seed_mean
from husai_core.stability.overlap import pwmcc
from tests.husai_core.kinds.stress_job import run

RECIPE = {"d_sae": 48, "k": 4, "tokens": 128 * 60, "batch_size": 128, "lr": 5e-3, "dead_after_tokens": 2000}
SPEC = {"recipe": RECIPE, "seeds": [3, 5]}
JUMPRELU = {"architecture": "jumprelu", "target_l0": 4}
WORLD = {"rows": 2000, "n_features": 24, "d_model": 12, "active": 2}


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    spec = {"source": "synthetic", "world": WORLD}
    return run("train.activations", tmp_path_factory.mktemp("activations"), spec)[1][0]


def test_figures_are_those_of_the_saved_checkpoints_on_the_test_rows(activations: Artifact, tmp_path: Path) -> None:
    result, saes, job = run("train.sae", tmp_path, SPEC, activations=[activations])
    rows = store.load(activations.path)
    assert [member.seed for member in result.members] == [3, 5]
    for member, saved in zip(result.members, saes, strict=True):
        loaded = checkpoint.load(saved.path)
        figures = evaluate(loaded, rows.part("test")[:])
        assert member.explained_variance == figures.explained_variance > 0.5
        assert (member.l0, member.dead_fraction) == (figures.l0, figures.dead_fraction)
        assert figures != evaluate(loaded, rows.part("train")[:])
        said = loaded.provenance
        assert (said["seed"], said["activations_digest"]) == (member.seed, activations.digest)
        assert checkpoint.recipe(loaded).k == 4
    assert result.curves[-1].tokens == RECIPE["tokens"]
    assert len(result.curves) == len(job.curves) > 10
    trained, measured = RECIPE["tokens"], 4 * len(rows.part("test"))
    assert (trained, trained) in job.reports
    assert job.reports[-6:-2] == [(share * measured / 4, measured) for share in (1, 2, 3, 4)]
    assert job.reports[-2:] == [(1, 2), (2, 2)]
    assert result.converged == all(member.converged for member in result.members)


def test_the_half_is_measured_beside_the_whole(activations: Artifact, tmp_path: Path) -> None:
    result, saes, _ = run("train.sae", tmp_path, SPEC | {"seeds": [3, 5, 6]}, activations=[activations])
    test_rows = store.load(activations.path).part("test")[:]
    wholes = [checkpoint.load(saved.path) for saved in saes]
    halves = [half for saved in saes if (half := checkpoint.load_half(saved.path))]
    for member, half, whole in zip(result.members, halves, wholes, strict=True):
        figures = evaluate(half, test_rows)
        measured = (member.half.explained_variance, member.half.l0, member.half.dead_fraction)
        assert measured == (figures.explained_variance, figures.l0, figures.dead_fraction)
        names = ("seed", "activations_digest", "hook_name", "bank_seeds")
        assert [half.provenance[name] for name in names] == [whole.provenance[name] for name in names]
        assert checkpoint.recipe(half).tokens == RECIPE["tokens"] / 2
    (doubling,) = result.doublings
    differences = [member.explained_variance - member.half.explained_variance for member in result.members]
    change, expected = doubling.changes["explained_variance"], seed_mean(differences).estimate()
    assert (change.low, change.value, change.high) == pytest.approx((expected.low, expected.value, expected.high))
    shared = [sum(pwmcc(a.decoder, b.decoder) for a, b in combinations(group, 2)) / 3 for group in (wholes, halves)]
    assert doubling.changes["pwmcc"].value == pytest.approx(shared[0] - shared[1])
    assert doubling.half["l0"].value == sum(member.half.l0 for member in result.members) / 3


def test_test_rows_influence_no_weight_and_no_curve(activations: Artifact, tmp_path: Path) -> None:
    rows = store.load(activations.path)
    tripled = rows.rows[:]
    tripled[rows.mask("test")] *= 3.0
    changed = replace(rows, rows=StoredRows([tripled]))
    (tmp_path / "changed").mkdir()
    store.save(tmp_path / "changed", changed)
    other = Artifact(activations.digest, "activations", tmp_path / "changed", [0.0])
    first, saes, _ = run("train.sae", tmp_path / "a", SPEC, activations=[activations])
    second, others, _ = run("train.sae", tmp_path / "b", SPEC, activations=[other])
    assert [a.digest for a in saes] == [b.digest for b in others]
    assert first.curves == second.curves
    assert first.members[0].explained_variance != second.members[0].explained_variance


def test_repeating_a_job_gives_the_same_bytes(activations: Artifact, tmp_path: Path) -> None:
    first, saes, _ = run("train.sae", tmp_path / "a", SPEC, activations=[activations])
    second, others, _ = run("train.sae", tmp_path / "b", SPEC, activations=[activations])
    assert [a.digest for a in saes] == [b.digest for b in others]
    assert canonical(first.model_dump(mode="json")) == canonical(second.model_dump(mode="json"))


class Interrupted(Exception):
    pass


class DrainingJob(LocalJob):
    """Asks for a checkpoint after twenty reports and is killed when it has one."""

    def metrics(self, step: int, values: Any) -> None:
        super().metrics(step, values)
        self.draining = len(self.curves) == 20

    def commit_checkpoint(self, path: Path) -> None:
        super().commit_checkpoint(path)
        raise Interrupted


def test_a_drained_job_goes_on_bit_for_bit(activations: Artifact, tmp_path: Path) -> None:
    whole, saes, _ = run("train.sae", tmp_path / "whole", SPEC, activations=[activations])
    declared, inputs = kinds.get("train.sae"), Inputs({"activations": [activations]})
    killed = DrainingJob(tmp_path / "killed")
    with pytest.raises(Interrupted):
        kind.run(declared.spec.model_validate(SPEC), inputs, killed)
    resumed = LocalJob(tmp_path / "resumed", resume=killed.resume)
    result = kind.run(declared.spec.model_validate(SPEC), inputs, resumed)
    assert len(resumed.curves) == len(whole.curves) - 20
    assert result == whole
    assert [artifact_in(path, "sae").digest for _, _, path in resumed.outputs] == [a.digest for a in saes]


def test_rows_that_cannot_be_trained_on_are_refused(activations: Artifact, tmp_path: Path) -> None:
    rows = store.load(activations.path)
    (tmp_path / "flat").mkdir()
    store.save(tmp_path / "flat", replace(rows, rows=StoredRows([torch.ones(rows.rows.shape)])))
    with pytest.raises(UserError, match="not all equal"):
        run("train.sae", tmp_path, SPEC, activations=[artifact_in(tmp_path / "flat", "activations")])


def test_a_diverging_run_is_an_error_not_a_checkpoint(activations: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="seed 3 diverged"):
        run("train.sae", tmp_path, {**SPEC, "recipe": {**RECIPE, "lr": 1e38}}, activations=[activations])


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [2**53]])
def test_seeds_are_distinct_and_in_range(seeds: list[int]) -> None:
    with pytest.raises(ValidationError):
        kind.Spec(seeds=seeds)


@pytest.mark.parametrize("name", kind.PRESETS)
def test_presets_are_valid(name: str) -> None:
    spec = kind.Spec.model_validate(kind.PRESETS[name])
    assert spec.recipe.tokens >= 200_000


def test_variants_come_in_order_and_equal_a_job_of_their_own(activations: Artifact, tmp_path: Path) -> None:
    spec = SPEC | {"variants": [{}, {"architecture": "batchtopk"}, JUMPRELU]}
    result, saes, _ = run("train.sae", tmp_path / "bank", spec, activations=[activations])
    assert [(m.variant, m.architecture, m.k, m.target_l0, m.seed) for m in result.members] == [
        (*variant, seed)
        for variant in ((0, "topk", 4, None), (1, "batchtopk", 4, None), (2, "jumprelu", None, 4))
        for seed in (3, 5)
    ]
    assert [checkpoint.load(saved.path).architecture for saved in saes] == ["topk"] * 2 + ["jumprelu"] * 4
    alone = SPEC | {"recipe": RECIPE | JUMPRELU | {"k": None}}
    _, others, _ = run("train.sae", tmp_path / "alone", alone, activations=[activations])
    for ours, other in zip(saes[4:], others, strict=True):
        a, b = checkpoint.load(ours.path), checkpoint.load(other.path)
        torch.testing.assert_close(a.W_dec, b.W_dec, rtol=1e-5, atol=1e-5)
        assert checkpoint.recipe(a) == checkpoint.recipe(b)


@pytest.mark.parametrize(
    "variants", [[{"d_sae": 96}], [{"k": 4}, {}], [{"architecture": "relu"}], [{"experts": 4}], [{"colour": 1}]]
)
def test_variants_that_do_not_fit_together_are_refused(variants: list[dict[str, Any]]) -> None:
    base = SPEC | {"variants": [{}, *variants]}
    with pytest.raises(ValidationError):
        kind.Spec.model_validate(base)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"variants": [{"kk": 3}]}, ("variants", 0, "kk"), "not permitted"),
        ({"variants": [{}, {"k": "many"}]}, ("variants", 1, "k"), "valid integer"),
        ({"variants": [{}, {"experts": 4}]}, ("variants", 1), "experts: not read by a topk SAE"),
        ({"recipe": {"architecture": "relu", "l1": 1.0, "k_aux": 4}}, (), "recipe.k_aux: not read by a relu SAE"),
        ({"recipe": {"k": 4, "experts": 4}, "variants": [{}, JUMPRELU]}, (), "not read by a topk or jumprelu SAE"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(spec: dict[str, Any], path: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        kind.Spec.model_validate(spec)
    (error,) = refused.value.errors()
    assert error["loc"] == path
    assert message in error["msg"]


def test_a_variant_takes_from_the_recipe_what_it_reads() -> None:
    spec = kind.Spec.model_validate({"recipe": {"k": 4, "k_aux": 8, "bandwidth": 0.5}, "variants": [{}, JUMPRELU]})
    assert [(recipe.k_aux, recipe.bandwidth) for recipe in spec.recipes] == [(8, 0.1), (None, 0.5)]
    assert kind.Spec.model_validate(spec.model_dump(mode="json")) == spec
    alone = kind.Spec.model_validate({"variants": [JUMPRELU]})
    assert [recipe.k_aux for recipe in alone.recipes] == [None]


def test_rows_that_do_not_fit_in_memory_give_the_same(
    activations: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, near, _ = run("train.sae", tmp_path / "near", SPEC, activations=[activations])
    monkeypatch.setattr(training, "IN_MEMORY", 0)
    _, far, _ = run("train.sae", tmp_path / "far", SPEC, activations=[activations])
    assert [saved.digest for saved in near] == [saved.digest for saved in far]
