"""`benchmark.core` on the built-in language model and on a network for addition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from husai_core import assets, kinds, panels
from husai_core.activations import store
from husai_core.data.text import Sequences, read
from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.benchmark.core import Result, Spec
from husai_core.local_job import artifact_in
from husai_core.models import language
from husai_core.panels import to_csv
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE
from tests.husai_core.kinds.stress_job import forged, network, run, siblings
from tests.husai_core.models import tiny_language

KIND = "benchmark.core"
HOOK = "blocks.1.hook_resid_post"
MODEL, CONTEXT, GRAM, D = "classics-2m", 32, 13, 128
ROWS: dict[str, Any] = {"source": "language", "model": MODEL, "hook_name": HOOK, "context": CONTEXT, "max_rows": 2000}
SAES = {"d_sae": 256, "k": 8, "tokens": 20_000, "batch_size": 256}
CHAPTER = (assets.HELD_OUT / "lady-susan.md").read_text()[:24_000]
IMPORTED = {"imported": True, "hook_name": HOOK, "position": None, "converged": None, "drift_from_init": None}


@dataclass(frozen=True)
class World:
    """Text, rows of a share of it, and SAEs on these."""

    text: Artifact
    rows: Artifact
    saes: list[Artifact]

    def core(self, home: Path, saes: list[Artifact] | None = None, **spec: Any) -> Result:
        inputs = {"text": [self.text], "activations": [self.rows]}
        spec = {"model": MODEL} | spec
        result, artifacts, _ = run(KIND, home, spec, saes=self.saes if saes is None else saes, **inputs)
        assert artifacts == []
        assert isinstance(result, Result)
        return Result.model_validate_json(result.model_dump_json())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("world")
    (home / "text").mkdir()
    (home / "text" / "a.txt").write_text(CHAPTER)
    text = artifact_in(home / "text", "upload")
    (rows,) = run("train.activations", home / "rows", ROWS, text=[text])[1]
    return World(text, rows, siblings(home / "saes", rows, **SAES))


@pytest.fixture(scope="module")
def sequences(world: World) -> Sequences:
    """All windows of the text."""
    return language.load(assets.HOME / MODEL).sequences(read([world.text.path]), CONTEXT)


@pytest.fixture(scope="module")
def result(world: World, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return world.core(tmp_path_factory.mktemp("core"), max_sequences=40)


def value(evidence: Evidence, name: str) -> float:
    figure = evidence.statistics[name].value
    assert figure is not None, name
    return figure


def held_out(world: World, sequences: Sequences) -> Sequences:
    """Those that share no 13 tokens with trained rows, by brute force."""
    rows = store.load(world.rows.path)
    assert rows.sequence is not None
    assert rows.place is not None
    trained_on = dict[int, dict[int, int]]()
    for row in (~rows.mask("test")).nonzero()[:, 0].tolist():
        trained_on.setdefault(int(rows.sequence[row]), {})[int(rows.place[row])] = int(rows.tokens[row, 0])
    starts = range(CONTEXT - GRAM + 1)
    grams = {tuple(tokens.get(at + i, -1) for i in range(GRAM)) for tokens in trained_on.values() for at in starts}
    kept = [
        number
        for number, window in enumerate(sequences.tokens.tolist())
        if not any(tuple(window[at : at + GRAM]) in grams for at in starts)
    ]
    return sequences.select(torch.tensor(kept))


def test_losses_are_those_of_plain_transformers_with_a_hook_of_its_own(
    world: World, sequences: Sequences, tmp_path: Path
) -> None:
    """Nothing of ours but the SAE's weights takes part in the expected figures."""
    lone = world.core(tmp_path, world.saes[:1], max_sequences=100_000)
    expected = held_out(world, sequences)
    tokens, is_text = expected.tokens, expected.is_text
    assert 50 < lone.sequences == len(tokens) < len(sequences) - 40
    assert lone.rows == int(is_text.sum())
    original = AutoModelForCausalLM.from_pretrained(assets.HOME / MODEL).eval()
    weights, counted = checkpoint.load(world.saes[0].path), is_text[:, 1:]

    def logits(change: Any) -> torch.Tensor:
        def replace(_: Any, __: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            changed = torch.where(is_text[:, :, None], change(hidden), hidden)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = original.gpt_neox.layers[1].register_forward_hook(replace)
        with torch.no_grad():
            log_p: torch.Tensor = original(tokens).logits[:, :-1].log_softmax(-1)
        handle.remove()
        return log_p[counted]

    def encoded(x: torch.Tensor) -> torch.Tensor:
        z = ((x - weights.b_dec) @ weights.W_enc + weights.b_enc).relu()
        top = z.topk(8, -1)
        return torch.zeros_like(z).scatter(-1, top.indices, top.values) @ weights.W_dec + weights.b_dec

    clean, spliced, zero = (logits(change) for change in (lambda x: x, encoded, torch.zeros_like))
    mean = original(tokens, output_hidden_states=True).hidden_states[2][is_text].mean(0)
    targets = tokens[:, 1:][counted]
    by_mean = logits(lambda x: mean.expand_as(x))
    ce = {n: float(F.nll_loss(p, targets)) for n, p in zip("cszm", (clean, spliced, zero, by_mean), strict=True)}
    kl = {
        n: float((clean.exp() * (clean - p)).sum(1).mean())
        for n, p in zip("szm", (spliced, zero, by_mean), strict=True)
    }
    assert value(lone, "cross_entropy_model") == pytest.approx(ce["c"], abs=1e-5)
    assert value(lone, "loss_recovered") == pytest.approx((ce["z"] - ce["s"]) / (ce["z"] - ce["c"]), abs=1e-5)
    recovered_of_mean = (ce["m"] - ce["s"]) / (ce["m"] - ce["c"])
    assert value(lone, "loss_recovered_mean_ablation") == pytest.approx(recovered_of_mean, abs=1e-5)
    assert value(lone, "kl_recovered") == pytest.approx(1 - kl["s"] / kl["z"], abs=1e-5)
    assert value(lone, "kl_recovered_mean_ablation") == pytest.approx(1 - kl["s"] / kl["m"], abs=1e-5)


def test_figures_of_siblings_are_means_with_intervals_over_seeds(result: Result) -> None:
    assert result.seeds == [0, 1, 2]
    for name in ("loss_recovered", "kl_recovered", "explained_variance", "l0", "dead_fraction"):
        estimate = result.statistics[name]
        singles = [sae.figures[name].value for sae in result.saes]
        assert estimate.value == pytest.approx(sum(v for v in singles if v is not None) / 3)
        assert (estimate.n, estimate.unit) == (3, "seed")
        assert {sae.figures[name].unit for sae in result.saes} == {"sequence group"}
    low, high = (
        result.statistics["kl_recovered_minus_random"].low,
        result.statistics["kl_recovered_minus_random"].high,
    )
    assert low is not None
    assert high is not None
    assert 0 < low < value(result, "kl_recovered") - value(result, "kl_recovered_random") < high


def test_random_saes_are_as_sparse_and_recover_less(result: Result) -> None:
    assert value(result, "l0_random") == pytest.approx(value(result, "l0"))
    assert value(result, "explained_variance") > value(result, "explained_variance_random") + 0.1
    assert len({json.dumps(sae.model_dump()["figures"]) for sae in result.random}) == 3


def test_one_sae_is_judged_over_sequences(world: World, tmp_path: Path) -> None:
    lone = world.core(tmp_path, world.saes[:1], max_sequences=30)
    estimate = lone.statistics["loss_recovered"]
    assert (estimate.n, estimate.unit) == (30, "sequence")
    assert estimate.low is not None
    assert lone.siblings_left_out == 2
    assert lone.subject == [world.saes[0].digest]


def imported(folder: Path, d: int = D, **fields: Any) -> Artifact:
    """An SAE from elsewhere that reconstructs exactly: latents are the positive and negative parts of the row."""
    eye = torch.cat([torch.eye(d), -torch.eye(d)], 1)
    sae = SAE(architecture="relu", W_enc=eye, b_enc=torch.zeros(2 * d), W_dec=eye.T.contiguous(), b_dec=torch.zeros(d))
    sae.hook_name = fields.get("hook_name", HOOK)
    folder.mkdir()
    checkpoint.save(sae, folder, IMPORTED | {"hook_name": sae.hook_name})
    return artifact_in(folder, "sae")


def test_a_perfect_sae_from_elsewhere_loses_nothing(world: World, tmp_path: Path) -> None:
    """It needs no activations, since nothing here trained it, and its control is as dense as it is."""
    sae, spec = imported(tmp_path / "sae", hook_name=None), {"model": MODEL, "context": CONTEXT, "max_sequences": 40}
    with pytest.raises(UserError, match="do not say at which hook"):
        run(KIND, tmp_path / "a", spec, saes=[sae], text=[world.text])
    measured, _, job = run(KIND, tmp_path / "b", spec | {"hook_name": HOOK}, saes=[sae], text=[world.text])
    assert isinstance(measured, Result)
    for name in ("loss_recovered", "kl_recovered", "explained_variance", "cosine_similarity"):
        assert value(measured, name) == pytest.approx(1.0, abs=1e-4)
    assert value(measured, "dense_fraction") > 0.99
    assert value(measured, "l0") == pytest.approx(D)
    assert measured.imported
    assert not measured.converged
    assert job.reports[-1] == (40 * 7, 40 * 7)


def test_a_thresholded_sae_has_a_control_of_equal_l0(world: World, tmp_path: Path) -> None:
    saes = siblings(tmp_path / "saes", world.rows, [0], **SAES | {"architecture": "batchtopk"})
    measured = world.core(tmp_path / "core", saes, max_sequences=40)
    assert value(measured, "l0") != round(value(measured, "l0"))
    assert value(measured, "l0_random") == pytest.approx(value(measured, "l0"), rel=0.1)


def test_saes_that_were_trained_here_need_their_rows_and_sequences_beside_these(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the activations, too"):
        run(KIND, tmp_path / "a", {"model": MODEL}, saes=world.saes, text=[world.text])
    spec = ROWS | {"max_rows": 10**6, "test_fraction": 0.01, "validation_fraction": 0.01}
    (rows,) = run("train.activations", tmp_path / "rows", spec, text=[world.text])[1]
    (sae,) = siblings(tmp_path / "saes", rows, [0], **SAES | {"tokens": 2000})
    with pytest.raises(UserError, match=r"only [0-2] of \d+ sequences of the text were held out"):
        World(world.text, rows, [sae]).core(tmp_path / "b", context=2 * CONTEXT)


def test_what_cannot_be_measured_is_refused_before_it_is_queued() -> None:
    trained, foreign = ({"architecture": "topk", "d_in": 8, "husai": {"imported": known}} for known in (False, True))
    spec, rows = Spec(model=MODEL), [{"d_model": 8}]
    spec.check_facts({"saes": [trained], "activations": rows})
    spec.check_facts({"saes": [foreign]})
    spec.check_facts({"saes": [{}]})
    with pytest.raises(UserError, match="give the activations, too"):
        spec.check_facts({"saes": [trained]})
    with pytest.raises(UserError, match="no siblings"):
        spec.check_facts({"saes": [trained, foreign], "activations": rows})


def test_special_tokens_and_early_tokens_keep_their_activations(world: World, tmp_path: Path) -> None:
    plain = world.core(tmp_path / "a", world.saes[:1], max_sequences=5)
    assert plain.rows == 5 * (CONTEXT - 1)  # the first token is special
    later = world.core(tmp_path / "b", world.saes[:1], max_sequences=5, from_position=8)
    assert later.rows == 5 * (CONTEXT - 8)
    special = world.core(tmp_path / "c", world.saes[:1], max_sequences=5, special_tokens=True)
    assert special.rows == 5 * CONTEXT
    assert special.predictions == plain.predictions


def test_a_model_whose_loss_ablation_does_not_raise_gives_no_share(world: World, tmp_path: Path) -> None:
    """Its weights are random, so that nothing makes its guesses worse."""
    folder = tiny_language.write(tmp_path / "model")
    (folder / "cfg.json").write_text(json.dumps({"architecture": "GPTNeoXForCausalLM", "leaks_label": False}))
    inputs = {"transformer": [artifact_in(folder, "transformer")], "text": [world.text]}
    spec = {"context": 32, "max_sequences": 20}
    measured = run(KIND, tmp_path / "x", spec, saes=[imported(tmp_path / "sae", d=16)], **inputs)[0]
    assert isinstance(measured, Result)
    assert measured.statistics["loss_recovered"].value is None
    assert value(measured, "explained_variance") > 0.99
    shown = kinds.get(KIND).panels(measured.model_dump(mode="json"))
    assert isinstance(shown[0], panels.Headline)
    assert "hardly raises" in shown[0].text


def test_networks_for_addition_are_measured_at_the_position_that_is_read(tmp_path: Path) -> None:
    model = network(tmp_path / "network")
    (rows,) = run("train.activations", tmp_path / "rows", {}, transformer=[model])[1]
    saes = siblings(tmp_path / "saes", rows)
    measured, _, _ = run(KIND, tmp_path / "core", {}, saes=saes, transformer=[model], activations=[rows])
    assert isinstance(measured, Result)
    assert measured.sequences == measured.rows == measured.predictions == int(store.load(rows.path).mask("test").sum())
    explained = store.load(rows.path).part("test")[:]
    error = explained - checkpoint.load(saes[0].path)(explained)
    ev = 1 - float(error.square().sum() / (explained - explained.mean(0)).square().sum())
    assert measured.saes[0].figures["explained_variance"].value == pytest.approx(ev, abs=1e-5)
    assert value(measured, "cross_entropy") >= 0
    other = network(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="not trained on this transformer"):
        run(KIND, tmp_path / "x", {}, saes=saes, transformer=[other], activations=[rows])


def test_repeats_bit_for_bit(world: World, result: Result, tmp_path: Path) -> None:
    assert world.core(tmp_path, max_sequences=40).model_dump_json() == result.model_dump_json()


def test_what_does_not_fit_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not 'blocks.0.hook_resid_post'"):
        world.core(tmp_path / "a", hook_name="blocks.0.hook_resid_post")
    wide = imported(tmp_path / "wide", d=20)
    with pytest.raises(UserError, match="the SAEs read rows of width 20, but these have width 128"):
        run(KIND, tmp_path / "b", {"model": MODEL}, saes=[wide], text=[world.text])
    with pytest.raises(UserError, match="either model or a transformer"):
        world.core(tmp_path / "c", model=None)
    foreign = forged(world.saes[0], tmp_path / "foreign", model_digest="0" * 64)
    with pytest.raises(UserError, match="not trained on activations of this model"):
        world.core(tmp_path / "d", [foreign])
    with pytest.raises(ValidationError, match="import it with"):
        Spec.model_validate({"model": "./folder"})
    assert kinds.get(KIND).assets is not None
    assert list(kinds.get(KIND).assets(Spec(model="a/model"))) == ["a/model"]  # type: ignore[misc]


def test_every_figure_is_shown_beside_a_random_saes(result: Result) -> None:
    shown = kinds.get(KIND).panels(result.model_dump(mode="json"))
    assert isinstance(shown[0], panels.Headline)
    assert f"{value(result, 'loss_recovered'):.3f}" in shown[0].text
    assert "a random SAE" in shown[0].text
    text = "\n".join(map(to_csv, shown))
    assert all(str(e.value) in text for e in result.statistics.values())
    tables = {panel.title: panel for panel in shown if isinstance(panel, panels.Table)}
    row = {str(cells[0]): cells for cells in tables["SAE beside random SAE"].rows}["explained variance"]
    names = ("explained_variance", "explained_variance_random", "explained_variance_minus_random")
    assert row[1:] == [result.statistics[name] for name in names]


def test_all_statistics_are_declared_with_their_ranges(result: Result) -> None:
    declared = kinds.get(KIND).statistics
    assert declared.keys() == result.statistics.keys()
    for name, estimate in result.statistics.items():
        low, high = declared[name]
        assert low <= value(result, name) <= high, name
        assert estimate.low is None or low <= estimate.low, name


def test_more_sequences_and_saes_are_more_work() -> None:
    estimate = kinds.get(KIND).estimate
    assert estimate
    facts = {"saes": [{"d_in": 128, "d_sae": 512}], "transformer": [{"d_model": 128, "n_layers": 4}]}
    small, large = (estimate(Spec(max_sequences=n), facts) for n in (100, 200))
    assert large.units == pytest.approx(2 * small.units)
    assert estimate(Spec(max_sequences=100), facts | {"saes": facts["saes"] * 3}).units > small.units
