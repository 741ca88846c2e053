"""Stresses of SAEs on a language model: everything that they read was extracted by train.activations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from husai_core import assets, kinds, panels
from husai_core.activations import store
from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.stress.ood import Result as ShiftResult
from husai_core.kinds.stress.transcoder import Result as TranscoderResult
from husai_core.kinds.stress.untrained_model import Result as UntrainedResult
from husai_core.local_job import artifact_in
from tests.husai_core.kinds.stress_job import run, siblings, stress
from tests.husai_core.models import tiny_language

HOOK = "blocks.1.hook_resid_post"
MLP = ("blocks.1.ln2.hook_out", "blocks.1.hook_mlp_out")
RECIPE = {"d_sae": 24, "k": 3, "tokens": 20_000, "batch_size": 256}


@dataclass(frozen=True)
class World:
    """A tiny language model and a text, the rows that it gives, and SAEs on those of `HOOK`."""

    home: Path
    model: Artifact
    text: Artifact
    rows: Artifact
    mlp: list[Artifact]
    saes: list[Artifact]

    def read(self, name: str, text: Artifact | None = None, **spec: Any) -> list[Artifact]:
        """Rows of the model on a text; the world's if none."""
        spec = {"source": "language", "hook_name": HOOK, "context": 16} | spec
        return run("train.activations", self.home / name, spec, transformer=[self.model], text=[text or self.text])[1]

    def stress(self, kind: str, name: str, **inputs: Sequence[Artifact]) -> Evidence:
        return stress(kind, self.home / name, {}, saes=self.saes, **inputs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("language")
    directory = tiny_language.write(home / "model")
    (directory / "cfg.json").write_text('{"architecture": "GPTNeoXForCausalLM", "leaks_label": false}')
    model = artifact_in(directory, "transformer")
    text = written(home / "text", (assets.HELD_OUT / "lady-susan.md").read_text()[:9000])
    hooks = {"source": "language", "hook_name": "blocks.0.hook_resid_post", "hook_names": [HOOK, *MLP], "context": 16}
    rows, *mlp = run("train.activations", home / "rows", hooks, transformer=[model], text=[text])[1]
    return World(home, model, text, rows, mlp, siblings(home / "saes", rows, **RECIPE))


def written(folder: Path, text: str) -> Artifact:
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    return artifact_in(folder, "upload")


@pytest.fixture(scope="module")
def untrained(world: World) -> dict[str, Artifact]:
    """Two draws of each kind of untrained network."""
    return {
        f"{mode}{seed}": world.read(f"{mode}{seed}", untrained=mode, untrained_seed=seed)[0]
        for mode in ("all", "keep_embeddings")
        for seed in (1, 2)
    }


def test_an_untrained_model_gives_other_rows_of_the_same_tokens(
    world: World, untrained: Mapping[str, Artifact]
) -> None:
    trained = store.load(world.rows.path)
    for name, artifact in untrained.items():
        drawn = store.load(artifact.path)
        assert torch.equal(drawn.tokens, trained.tokens), name
        assert torch.equal(drawn.split, trained.split), name
        assert not torch.allclose(drawn.rows[:], trained.rows[:]), name
        assert drawn.model_digest != trained.model_digest
    everything = [store.load(artifact.path).rows[:] for artifact in untrained.values()]
    assert not torch.allclose(everything[0], everything[1])


def test_the_largest_overlap_of_the_untrained_networks_counts(world: World, untrained: Mapping[str, Artifact]) -> None:
    drawn = [*untrained.values()]
    measured = world.stress("stress.untrained_model", "all", activations=[world.rows], untrained=drawn)
    assert isinstance(measured, UntrainedResult)
    assert [(network.mode, network.seed) for network in measured.networks] == [
        ("all", 1), ("all", 2), ("keep_embeddings", 1), ("keep_embeddings", 2)
    ]  # fmt: skip
    values = {name: estimate.value or 0.0 for name, estimate in measured.statistics.items()}
    modes = [values[f"pwmcc_untrained_{mode}"] for mode in ("all", "keep_embeddings")]
    assert values["pwmcc_untrained"] == pytest.approx(max(modes))
    assert values["trained_minus_untrained"] == pytest.approx(values["pwmcc_trained"] - max(modes))
    overlaps = [sum(network.pairs[i][j] or 0 for i, j in ((0, 1), (0, 2), (1, 2))) / 3 for network in measured.networks]
    assert modes == pytest.approx([(overlaps[0] + overlaps[1]) / 2, (overlaps[2] + overlaps[3]) / 2])
    assert measured.changes["trained_minus_untrained"].low is not None
    assert (measured.provenance, measured.leaks_label) == ("trained here", False)
    declared = kinds.get("stress.untrained_model").statistics
    assert measured.statistics.keys() <= declared.keys()
    shown = kinds.get("stress.untrained_model").panels(measured.model_dump(mode="json"))
    assert any(
        "embeddings kept" in row.label for panel in shown if isinstance(panel, panels.Intervals) for row in panel.rows
    )


def test_a_single_draw_gives_an_interval_over_seeds_alone(world: World, untrained: Mapping[str, Artifact]) -> None:
    first, second = untrained["all1"], untrained["all2"]
    alone = world.stress("stress.untrained_model", "first", activations=[world.rows], untrained=[first])
    both = world.stress("stress.untrained_model", "both", activations=[world.rows], untrained=[first, second])
    name = "trained_minus_untrained"
    assert "pwmcc_untrained_all" not in alone.statistics
    assert "2 degrees of freedom" in alone.statistics[name].method
    assert "2 degrees of freedom" not in both.statistics[name].method
    assert both.statistics[name].value != alone.statistics[name].value


def test_rows_that_do_not_belong_together_are_refused(
    world: World, untrained: Mapping[str, Artifact], tmp_path: Path
) -> None:
    kind, rows = "stress.untrained_model", [world.rows]
    with pytest.raises(UserError, match="of no untrained language model"):
        world.stress(kind, "trained", activations=rows, untrained=rows)
    with pytest.raises(UserError, match="the untrained_seed of another one"):
        world.stress(kind, "twice", activations=rows, untrained=[untrained["all1"]] * 2)
    other = artifact_in(tiny_language.write(tmp_path / "other", n_layers=2), "transformer")
    spec = {"source": "language", "hook_name": HOOK, "context": 16, "untrained": "all"}
    (elsewhere,) = run("train.activations", tmp_path / "rows", spec, transformer=[other], text=[world.text])[1]
    with pytest.raises(UserError, match="of another model than the activations"):
        world.stress(kind, "elsewhere", activations=rows, untrained=[elsewhere])
    (split,) = world.read("split", untrained="all", seed=3)
    with pytest.raises(UserError, match="of other tokens or has another split"):
        world.stress(kind, "split", activations=rows, untrained=[split])
    with pytest.raises(UserError, match="bind either transformer"):
        world.stress(kind, "none", activations=rows)


def test_a_transcoder_reads_the_stored_rows_of_an_mlp(world: World) -> None:
    ports = {"mlp_input": world.mlp[:1], "mlp_output": world.mlp[1:]}
    measured = world.stress("stress.transcoder", "transcoder", **ports)
    assert isinstance(measured, TranscoderResult)
    assert (measured.input_hook, measured.output_hook) == MLP
    assert measured.statistics["sae_minus_transcoder_rescaled"].low is not None
    assert measured.changes["sae_minus_transcoder_rescaled"].low is not None
    assert measured.statistics.keys() <= kinds.get("stress.transcoder").statistics.keys()
    assert len(measured.transcoder.covariance_members) == 3


def test_rows_that_are_not_of_the_mlp_of_the_layer_are_refused(world: World) -> None:
    kind, source = "stress.transcoder", world.mlp[:1]
    with pytest.raises(UserError, match=r"mlp_output is of 'blocks\.1\.ln2\.hook_out', but the SAEs' layer needs"):
        world.stress(kind, "swapped", mlp_input=source, mlp_output=source)
    below = world.read("below", hook_name="blocks.0.hook_mlp_out")
    with pytest.raises(UserError, match=r"the SAEs' layer needs blocks\.1\.hook_mlp_out"):
        world.stress(kind, "below", mlp_input=source, mlp_output=below)
    fewer = world.read("fewer", hook_name=MLP[1], max_rows=1500)
    with pytest.raises(UserError, match="mlp_output is of other tokens or has another split"):
        world.stress(kind, "fewer", mlp_input=source, mlp_output=fewer)
    fresh = world.read("fresh", hook_name=MLP[1], untrained="all")
    with pytest.raises(UserError, match="mlp_output has another model"):
        world.stress(kind, "fresh", mlp_input=source, mlp_output=fresh)
    with pytest.raises(UserError, match="bind either transformer"):
        world.stress(kind, "half", mlp_input=source)
    spec = kinds.get(kind).spec.model_validate({})
    facts = {"saes": [*map(facts_of, world.saes)], "mlp_input": [facts_of(source[0])]}
    spec.check_facts(facts | {"mlp_output": [{"d_model": 16, "n_rows": 9}]})
    with pytest.raises(UserError, match="the SAEs' layer needs"):
        spec.check_facts(facts | {"mlp_output": [facts_of(source[0])]})


def facts_of(artifact: Artifact) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((artifact.path / "cfg.json").read_bytes())
    return known


def test_the_text_that_is_explained_worst_counts(world: World, tmp_path: Path) -> None:
    """The same text again costs nothing; noise of rare characters does."""
    near = world.read("again")[0]
    far = world.read("far", written(tmp_path / "far", "§ 7 # ~ 9 } 4 % | 2 = " * 150))[0]
    measured = world.stress("stress.ood", "ood", activations=[world.rows], shifted=[near, far])
    assert isinstance(measured, ShiftResult)
    same, again, other = (sum(text.explained_variance) / 3 for text in measured.texts)
    assert (same, measured.texts[0].l0) == (again, measured.texts[1].l0)
    values = {name: estimate.value or 0.0 for name, estimate in measured.statistics.items()}
    assert values["explained_variance_id"] == pytest.approx(same)
    assert values["explained_variance_ood"] == pytest.approx(other)
    assert values["explained_variance_drop"] == pytest.approx(same - other)
    assert values["explained_variance_drop"] > 0.02
    assert values["dead_fraction_ood"] == pytest.approx(max(text.dead_fraction for text in measured.texts[1:]))
    assert values["random_explained_variance_id"] < same - 0.1
    assert measured.changes["explained_variance_drop"].low is not None
    assert "random_explained_variance_drop" not in measured.changes
    assert measured.statistics.keys() <= kinds.get("stress.ood").statistics.keys()
    shown = kinds.get("stress.ood").panels(measured.model_dump(mode="json"))
    assert "to the text that they explain worst, the drop" in shown[0].text  # type: ignore[union-attr]
    assert any(isinstance(panel, panels.Table) and len(panel.rows) == 3 for panel in shown)


def test_probes_and_kl_recovered_are_measured_inside_the_model(world: World, tmp_path: Path) -> None:
    text = written(tmp_path / "far", (assets.HELD_OUT / "alices-adventures-in-wonderland.md").read_text()[:6000])
    far = world.read("inside far", text)[0]
    inputs = {"activations": [world.rows], "shifted": [far, far], "transformer": [world.model]}
    texts = {"text": [world.text], "shifted_text": [text, text]}
    small = {"max_sequences": 12, "probe_rows": 512}
    measured = stress("stress.ood", world.home / "inside", small, saes=world.saes, **inputs, **texts)
    assert isinstance(measured, ShiftResult)
    values = {name: estimate.value or 0.0 for name, estimate in measured.statistics.items()}
    first, second, third = (known.inside for known in measured.texts)
    assert first
    assert second
    assert second == third
    assert values["probe_accuracy_id"] == pytest.approx(sum(first.probe_accuracy) / 3)
    assert 1 / 6 < values["probe_accuracy_ood"] <= values["probe_accuracy_id"] + 0.2
    drop = (sum(first.probe_accuracy) - sum(second.probe_accuracy)) / 3
    beyond = drop - (first.raw_probe_accuracy - second.raw_probe_accuracy)
    assert values["probe_accuracy_drop_excess"] == pytest.approx(beyond)
    assert values["kl_recovered_id"] > values["random_kl_recovered_id"]
    assert values["kl_recovered_drop"] == pytest.approx(values["kl_recovered_id"] - values["kl_recovered_ood"])
    assert {"probe_accuracy_drop_excess", "kl_recovered_drop"} <= measured.changes.keys()
    assert measured.statistics.keys() <= kinds.get("stress.ood").statistics.keys()
    shown = kinds.get("stress.ood").panels(measured.model_dump(mode="json"))
    assert any(panel.title == "Inside the model, on every text" for panel in shown if isinstance(panel, panels.Table))
    without_texts = stress("stress.ood", world.home / "no texts", small, saes=world.saes, **inputs)
    assert "kl_recovered_drop" not in without_texts.statistics
    assert without_texts.statistics["probe_accuracy_drop_excess"] == measured.statistics["probe_accuracy_drop_excess"]


def test_what_a_shift_inside_the_model_needs_is_said(world: World) -> None:
    rows = {"activations": [world.rows], "shifted": [world.rows]}
    with pytest.raises(UserError, match="text and shifted_text are read by a language model"):
        world.stress("stress.ood", "no model", **rows, shifted_text=[world.text])
    spec = kinds.get("stress.ood").spec.model_validate({"model": "classics-2m"})
    with pytest.raises(UserError, match="either model or a transformer"):
        spec.check_ports({"saes", "activations", "shifted", "transformer"})
    with pytest.raises(UserError, match="1 of the shifted activations were read from files, but there are 2"):
        spec.check_facts({"shifted": [{"hook_name": HOOK}, {"domain": "french"}], "shifted_text": [{}, {}]})
    other = artifact_in(tiny_language.write(world.home / "another", n_layers=2), "transformer")
    with pytest.raises(UserError, match="were not trained on this transformer"):
        stress("stress.ood", world.home / "other model", {}, saes=world.saes, **rows, transformer=[other])
    with pytest.raises(UserError, match="activations number 0 are not of the model classics-2m"):
        stress("stress.ood", world.home / "other name", {"model": "classics-2m"}, saes=world.saes, **rows)


def test_texts_of_another_hook_or_model_are_no_shift(world: World) -> None:
    with pytest.raises(UserError, match="shifted number 0 has another hook name"):
        world.stress("stress.ood", "hook", activations=[world.rows], shifted=world.mlp[1:])
    fresh = world.read("fresh rows", untrained="all")
    with pytest.raises(UserError, match="shifted number 0 has another model"):
        world.stress("stress.ood", "model", activations=[world.rows], shifted=fresh)
    with pytest.raises(UserError, match="bind either transformer"):
        world.stress("stress.ood", "alone", activations=[world.rows])


def test_imported_saes_are_stressed_by_their_recipe(world: World, untrained: Mapping[str, Artifact]) -> None:
    uploads = [Artifact(sae.digest, "upload", sae.path, [0.0]) for sae in world.saes]
    saes = [run("data.import", world.home / f"in{i}", {}, file=[sae])[1][0] for i, sae in enumerate(uploads)]
    imported = replace(world, saes=saes)
    rows, mlp = [world.rows], {"mlp_input": world.mlp[:1], "mlp_output": world.mlp[1:]}
    shift = imported.stress("stress.ood", "imported ood", activations=rows, shifted=rows)
    assert (shift.provenance, shift.retrained) == ("claimed", False)
    below = imported.stress("stress.untrained_model", "imported", activations=rows, untrained=[untrained["all1"]])
    across = imported.stress("stress.transcoder", "imported transcoder", **mlp)
    assert {(measured.provenance, measured.retrained) for measured in (below, across)} == {("claimed", True)}
    assert across.changes["sae_minus_transcoder_rescaled"].low is not None
