"""`study.check` of SAEs with a planted fault: the verdict is right, and what is said names the fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from husai_core.job import Artifact
from husai_core.kinds.kind import Done
from husai_core.kinds.study import check
from husai_core.local_job import LocalRunner, artifact_in
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE
from husai_core.stability.nulls import random_sae
from tests.planted_evidence import copying
from tests.planted_language import CONSTANT, CONTEXT, FEATURES, MOST, STRONG, D, Planted

HOOKS = [f"blocks.{layer}.hook_resid_post" for layer in (0, 1)]
UNKNOWN = dict.fromkeys(("seed", "converged", "model_digest", "activations_digest", "position", "drift_from_init"))
RECIPE = {"d_sae": FEATURES, "k": MOST, "tokens": 16_000, "batch_size": 128, "lr": 1e-2, "dead_after_tokens": 5_000}


@dataclass(frozen=True)
class World:
    """The planted model, one with attention sinks, and one that was never trained."""

    home: Path
    runner: LocalRunner
    planted: Planted

    def bound(self, model: Planted, sinks: int = 0) -> dict[str, Any]:
        """A model and a text of the language."""
        folder = self.home / f"{model.sink}-{model.trained}-{sinks}"
        if not folder.exists():
            model.write(folder / "model")
            self.planted.text(folder / "text", 6_000, sinks=sinks)
        artifacts = {"transformer": artifact_in(folder / "model", "transformer")}
        artifacts["text"] = artifact_in(folder / "text", "upload")
        return {port: [self.runner.keep(artifact, artifact.type)] for port, artifact in artifacts.items()}

    def saved(self, sae: SAE, name: str) -> Artifact:
        """An SAE as it would come from elsewhere, said to read behind block 1."""
        folder = self.home / name
        folder.mkdir()
        sae.hook_name = HOOKS[1]
        checkpoint.save(sae, folder, UNKNOWN | {"imported": True, "hook_name": HOOKS[1]})
        return artifact_in(folder, "sae")

    def check(self, saes: list[Artifact], inputs: dict[str, Any], **spec: Any) -> Done:
        spec = {"hook_name": HOOKS[1], "context": CONTEXT, "max_rows": 5_000, "max_sequences": 60} | spec
        bound = inputs | {"saes": [self.runner.keep(sae, "sae") for sae in saes]}
        return self.runner.outcome("study.check", spec | {"as_of": datetime.now(UTC).isoformat()}, bound)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    home = tmp_path_factory.mktemp("faults")
    return World(home, LocalRunner(home / "jobs"), Planted())


def true_sae(planted: Planted, layer: int) -> SAE:
    """The SAE whose latents are the planted features behind a block, which loses nothing."""
    directions = planted.directions if layer else STRONG * planted.basis[:FEATURES]
    return SAE(
        architecture="relu",
        W_enc=(directions / directions.square().sum(1, keepdim=True)).T.contiguous(),
        b_enc=torch.zeros(FEATURES),
        W_dec=directions.clone(),
        b_dec=CONSTANT * planted.basis[-1],
    )


def mean(planted: Planted) -> torch.Tensor:
    """About the mean of the rows behind block 1 [d]."""
    return planted.codes.mean(0) @ planted.directions + CONSTANT * planted.basis[-1]


def of_sinks(planted: Planted) -> SAE:
    """A random SAE one of whose latents is the direction of the sinks."""
    sae = random_sae(FEATURES, torch.zeros(D), seed=0, k=1)
    sae.W_dec[0], sae.W_enc[:, 0] = planted.basis[-3], planted.basis[-3]
    return sae


def dead(planted: Planted) -> SAE:
    """All latents are below their thresholds for good."""
    return replace(true_sae(planted, 1), b_enc=torch.full((FEATURES,), -1e4))


FAULTS: dict[str, tuple[Callable[[Planted], SAE], str, str]] = {
    "attention sinks": (of_sinks, "reconstruction.outliers", "Attention sinks, or other rows of outlying norm"),
    "dead": (dead, "reconstruction.outliers", "Dead latents: 100.00 % of the latents never fire"),
    "random": (
        lambda planted: random_sae(FEATURES, mean(planted), seed=0, k=MOST),
        "reconstruction.outliers",
        "It may be random, or hardly trained",
    ),
    "copies its input": (lambda _: copying(D), "sparsity", "It may copy its input: a row has 64 active latents"),
    "another layer": (
        lambda planted: true_sae(planted, 0),
        "reconstruction.outliers",
        "It may be of another layer: it explains 1 of the variance at blocks.0.hook_resid_post",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_sae_fails_and_its_fault_is_named(world: World, fault: str) -> None:
    make, rule, words = FAULTS[fault]
    sinks = fault == "attention sinks"
    inputs = world.bound(Planted(sink=64.0) if sinks else world.planted, sinks=40 if sinks else 0)
    ended = world.check([world.saved(make(world.planted), fault)], inputs)
    assert ended.state == "succeeded", ended.reason
    result = check.Result.model_validate(ended.result)
    assert result.verdict == "fail"
    assert any(reason.startswith(f"{rule}: ") for reason in result.reasons)
    assert result.may_be_wrong[0].startswith(words), result.may_be_wrong
    assert len(result.may_be_wrong) == 1


def test_of_a_good_sae_nothing_is_said(world: World) -> None:
    ended = world.check([world.saved(true_sae(world.planted, 1), "good")], world.bound(world.planted))
    result = check.Result.model_validate(ended.result)
    assert result.verdict == "inconclusive"
    assert result.may_be_wrong == []
    measured = {rule.name: rule.verdict for rule in result.rules if rule.evidence == "benchmark.core"}
    assert set(measured.values()) == {"pass"}


def test_a_network_that_was_never_trained_passes_for_none(world: World) -> None:
    """SAEs on it agree no more than on another such network."""
    inputs = world.bound(Planted(trained=False))
    read = {"source": "language", "hook_name": HOOKS[1], "context": CONTEXT, "max_rows": 5_000}
    bound = {port: [world.runner.artifacts[digest] for digest in digests] for port, digests in inputs.items()}
    rows = world.runner.run("train.activations", read, **bound).outputs["activations"]
    spec = {"recipe": RECIPE, "seeds": [0, 1, 2, 3]}
    saes = list(world.runner.run("train.sae", spec, activations=rows).outputs["saes"])
    ended = world.check(saes, inputs | {"activations": [rows[0].digest]})
    result = check.Result.model_validate(ended.result)
    rules = {rule.name: rule for rule in result.rules}
    assert result.verdict == "fail"
    assert rules["untrained_model"].verdict != "pass"
    assert "SAEs on an untrained network" in rules["untrained_model"].title
    assert rules["loss_recovered"].verdict == "inconclusive"
    assert any(text.startswith("The network may be untrained") for text in result.may_be_wrong)


def test_one_sae_in_three_numeric_formats_is_seen_as_one(world: World) -> None:
    good = world.saved(true_sae(world.planted, 1), "formats")
    saes = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        folder = world.home / f"as {dtype}"
        folder.mkdir()
        weights = load_file(good.path / "sae_weights.safetensors")
        save_file({name: value.to(dtype) for name, value in weights.items()}, folder / "sae_weights.safetensors")
        (folder / "cfg.json").write_bytes((good.path / "cfg.json").read_bytes())
        uploaded = world.runner.run("data.import", {"hook_name": HOOKS[1]}, file=[artifact_in(folder, "upload")])
        saes += uploaded.outputs["saes"]
    assert len({sae.digest for sae in saes}) == 3
    ended = world.check(saes, world.bound(world.planted), recipe=RECIPE | {"architecture": "relu", "k": None, "l1": 1})
    assert ended.state == "failed"
    assert "two of the SAEs have the same decoder weights, so they are one training" in str(ended.reason)
