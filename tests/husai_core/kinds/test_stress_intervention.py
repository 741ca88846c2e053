"""`stress.intervention` on a tiny language model and on a network for addition."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from husai_core import assets, kinds, panels
from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.stress.intervention import Result, Spec
from husai_core.local_job import artifact_in
from husai_core.panels import to_csv
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE
from husai_core.stability.nulls import random_sae
from tests.husai_core.kinds.stress_job import network, run, siblings
from tests.husai_core.models import tiny_language

KIND = "stress.intervention"
HOOK, D, N = "blocks.1.hook_resid_post", 16, 48
IMPORTED = {"imported": True, "hook_name": HOOK, "position": None, "converged": None, "drift_from_init": None}
SPEC = {"context": 16, "max_sequences": 40, "n_latents": 12, "sequences": 3}


@dataclass(frozen=True)
class World:
    """A tiny language model with a text, and SAEs from elsewhere that read it."""

    home: Path
    model: Artifact
    text: Artifact

    def saes(self, name: str, weights: list[SAE]) -> list[Artifact]:
        return [self.sae(f"{name}{i}", sae) for i, sae in enumerate(weights)]

    def sae(self, name: str, sae: SAE) -> Artifact:
        folder = self.home / name
        folder.mkdir()
        checkpoint.save(replace(sae, hook_name=HOOK), folder, IMPORTED)
        return artifact_in(folder, "sae")

    def measure(self, name: str, saes: list[Artifact], **spec: Any) -> Result:
        inputs = {"saes": saes, "transformer": [self.model], "text": [self.text]}
        result, artifacts, job = run(KIND, self.home / name, SPEC | spec, **inputs)
        assert artifacts == []
        assert isinstance(result, Result)
        done, total, _ = (*job.reports[-1], None)
        assert done == total
        return Result.model_validate_json(result.model_dump_json())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("intervention")
    folder = tiny_language.write(home / "model")
    (folder / "cfg.json").write_text(json.dumps({"architecture": "GPTNeoXForCausalLM", "leaks_label": False}))
    model = artifact_in(folder, "transformer")
    (home / "text").mkdir()
    (home / "text" / "a.txt").write_text((assets.HELD_OUT / "lady-susan.md").read_text()[:6000])
    return World(home, model, artifact_in(home / "text", "upload"))


def noisy(base: SAE, seed: int, share: float = 1.0, size: float = 0.03) -> SAE:
    """A copy with noise in its decoder, of which only a share of the latents is kept; the others are fresh."""
    rng = torch.Generator().manual_seed(seed)
    decoder = base.W_dec + size * torch.randn(base.W_dec.shape, generator=rng)
    fresh = torch.nn.functional.normalize(torch.randn(base.W_dec.shape, generator=rng), dim=1)
    kept = torch.arange(base.d_sae)[:, None] < share * base.d_sae
    decoder = torch.where(kept, decoder, fresh)
    return replace(base, W_dec=decoder, W_enc=decoder.T.contiguous())


def base() -> SAE:
    return random_sae(N, torch.zeros(D), 0, 6)


@pytest.fixture(scope="module")
def alike(world: World) -> Result:
    return world.measure("alike", world.saes("alike-", [noisy(base(), seed) for seed in (1, 2, 3)]))


def value(evidence: Evidence, name: str) -> float:
    figure = evidence.statistics[name].value
    assert figure is not None, name
    return figure


def test_twins_of_one_feature_do_the_same_and_controls_do_not(alike: Result) -> None:
    assert alike.seeds == [0, 1, 2]
    for mode in ("ablation", "steering"):
        assert value(alike, f"{mode}_cosine") > 0.6
        assert value(alike, f"{mode}_sign_agreement") > 0.75
        for control in ("random", "other"):
            above = alike.statistics[f"{mode}_cosine_minus_{control}"]
            assert above.value == pytest.approx(
                value(alike, f"{mode}_cosine") - value(alike, f"{mode}_cosine_{control}")
            )
            assert above.low is not None
            assert above.low > 0.1
        excess = alike.statistics[f"{mode}_cosine_excess"]
        assert (excess.n, excess.unit) == (3, "seed")
        assert excess.value == min(value(alike, f"{mode}_cosine_minus_{c}") for c in ("random", "other"))


def test_random_saes_agree_as_controls_do(world: World) -> None:
    drawn = [random_sae(N, torch.zeros(D), seed, 6) for seed in range(4)]
    random = world.measure("random", world.saes("random-", drawn), n_latents=40)
    for mode in ("ablation", "steering"):
        for figure in ("cosine", "sign_agreement"):
            excess = random.statistics[f"{mode}_{figure}_excess"]
            assert excess.low is not None
            assert excess.low < 0, (mode, figure)
            assert value(random, f"{mode}_{figure}_excess") < 0.1


def test_features_that_seeds_share_in_part_agree_in_part(world: World, alike: Result) -> None:
    half = world.measure("half", world.saes("half-", [noisy(base(), seed, share=0.5) for seed in (1, 2, 3)]))
    assert 0.15 < value(half, "ablation_cosine") < value(alike, "ablation_cosine") - 0.15
    assert value(half, "twin_cosine") < value(alike, "twin_cosine")


def test_two_seeds_give_no_interval(world: World) -> None:
    saes = world.saes("two-", [noisy(base(), seed) for seed in (1, 2)])
    two = world.measure("two", saes, n_latents=4)
    assert two.statistics["ablation_cosine_excess"].value is not None
    assert two.statistics["ablation_cosine_excess"].low is None
    shown = kinds.get(KIND).panels(two.model_dump(mode="json"))
    assert "is undecided" in shown[0].text  # type: ignore[union-attr]


def test_one_sae_alone_has_no_twins(world: World) -> None:
    assert kinds.get(KIND).inputs["saes"].at_least == 2


def test_figures_repeat_and_depend_on_the_seed(world: World, alike: Result) -> None:
    saes = world.saes("again-", [noisy(base(), seed) for seed in (1, 2, 3)])
    again = world.measure("again", saes)
    assert again.model_dump_json() == alike.model_dump_json()
    assert world.measure("reseeded", saes, seed=1).statistics != alike.statistics


def test_networks_for_addition_are_measured_where_they_say_the_sum(tmp_path: Path) -> None:
    model = network(tmp_path / "network")
    (rows,) = run("train.activations", tmp_path / "rows", {}, transformer=[model])[1]
    saes = siblings(tmp_path / "saes", rows)
    spec = {"n_latents": 6, "sequences": 5}
    measured, _, _ = run(KIND, tmp_path / "x", spec, saes=saes, transformer=[model], activations=[rows])
    assert isinstance(measured, Result)
    assert measured.latents_per_seed == [6, 6, 6]
    assert 0 < measured.predictions <= 3 * 6 * 5
    assert measured.statistics["ablation_cosine_excess"].low is not None
    with pytest.raises(UserError, match="give the activations, too"):
        run(KIND, tmp_path / "y", spec, saes=saes, transformer=[model])


def test_every_figure_is_shown(alike: Result) -> None:
    shown = kinds.get(KIND).panels(alike.model_dump(mode="json"))
    assert isinstance(shown[0], panels.Headline)
    assert "agree in what they do in the network, more than chance explains" in shown[0].text
    text = "\n".join(map(to_csv, shown))
    assert all(str(estimate.value) in text for estimate in alike.statistics.values())
    (table,) = (panel for panel in shown if panel.title == "Latents")
    assert isinstance(table, panels.Table)
    assert len(table.rows) == len(alike.latents) == 12
    levels = shown[1]
    assert isinstance(levels, panels.Intervals)
    assert [len(row.points) for row in levels.rows] == [3] * 6


def test_all_statistics_are_declared_with_their_ranges(alike: Result) -> None:
    declared = kinds.get(KIND).statistics
    assert declared.keys() == alike.statistics.keys()
    for name, estimate in alike.statistics.items():
        low, high = declared[name]
        assert low <= value(alike, name) <= high, name
        assert estimate.low is None or low <= estimate.low, name
        assert estimate.high is None or estimate.high <= high, name


def test_more_latents_and_saes_are_more_work() -> None:
    estimate = kinds.get(KIND).estimate
    assert estimate
    facts = {"saes": [{"d_in": 128, "d_sae": 512}] * 3, "transformer": [{"d_model": 128, "n_layers": 4}]}
    few, more = (estimate(Spec(n_latents=n), facts).units for n in (16, 32))
    assert few < more < 2.2 * few
    assert estimate(Spec(n_latents=16), facts | {"saes": facts["saes"] * 2}).units > 2 * few
