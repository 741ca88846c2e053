"""Evidence about SAEs on the planted language model, measured by the job kinds themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from husai_core import kinds
from husai_core.activations import store
from husai_core.evidence import Evidence
from husai_core.job import Artifact
from husai_core.kinds.stress import trained_vs_random, untrained_model
from husai_core.local_job import LocalRunner, artifact_in
from husai_core.saes import checkpoint
from husai_core.saes.evaluate import evaluate
from husai_core.saes.sae import SAE
from husai_core.stability import nulls
from husai_core.stability.halves import Measured
from husai_core.stability.pairwise import DoubledOverlaps
from husai_core.stability.result_tables import Member
from tests.planted_language import CONTEXT, FEATURES, MOST, Planted

LAYER, SEQUENCES = 1, 96
RECIPE: dict[str, Any] = {
    "d_sae": FEATURES,
    "k": MOST,
    "k_start": 3,
    "tokens": 90_000,
    "batch_size": 128,
    "lr": 5e-3,
    "decay_fraction": 0.4,
    "dead_after_tokens": 5_000,
}
FASTER = {"k_start": 4, "tokens": 100_000, "lr": 6e-3}
Change = Callable[[SAE], SAE]


@dataclass(frozen=True)
class Bench:
    """A planted model, its texts, and SAEs on the residual stream behind one of its blocks.

    `runner` keeps what it computed, so that nothing is measured twice.
    """

    home: Path
    planted: Planted = field(default_factory=Planted)
    layer: int = LAYER
    seeds: Sequence[int] = range(6)
    recipe: Mapping[str, Any] = field(default_factory=lambda: RECIPE)
    words: int = 40_000

    @cached_property
    def runner(self) -> LocalRunner:
        """Runs kinds below `home`."""
        return LocalRunner(self.home / "jobs")

    @cached_property
    def model(self) -> Artifact:
        """The language model."""
        return self.planted.write(self.home / "model")

    @cached_property
    def text(self) -> Artifact:
        """What the SAEs are trained on."""
        return self.planted.text(self.home / "text", self.words)

    @cached_property
    def shifted_text(self) -> Artifact:
        """The same language with other words in use."""
        return self.planted.text(self.home / "shifted", 6_000, seed=1, tilt=1.0)

    def read(self, *hooks: str, text: Artifact | None = None, **spec: Any) -> list[Artifact]:
        """Rows at some hooks of the SAEs' block."""
        names = [f"blocks.{self.layer}.{hook}" for hook in hooks]
        spec = {"source": "language", "hook_names": names, "context": CONTEXT} | spec
        ran = self.runner.run("train.activations", spec, transformer=self.model, text=text or self.text)
        return list(ran.outputs["activations"])

    @cached_property
    def rows(self) -> list[Artifact]:
        """Those of the SAEs, of the MLP's input and of its output."""
        return self.read("hook_resid_post", "ln2.hook_out", "hook_mlp_out")

    @cached_property
    def saes(self) -> list[Artifact]:
        """One for each seed."""
        spec = {"recipe": self.recipe, "seeds": list(self.seeds)}
        return list(self.runner.run("train.sae", spec, activations=self.rows[0]).outputs["saes"])

    @cached_property
    def imported(self) -> list[Artifact]:
        """The same as they come back from files; nothing binds them to a network."""
        files = [Artifact(sae.digest, "upload", sae.path, [0.0]) for sae in self.saes]
        return [self.runner.run("data.import", {}, file=[file]).outputs["saes"][0] for file in files]

    @property
    def inputs(self) -> dict[str, list[Artifact]]:
        """All that a kind may ask for, by port."""
        shifted = self.read("hook_resid_post", text=self.shifted_text)
        ports = {"activations": self.rows[:1], "mlp_input": self.rows[1:2], "mlp_output": self.rows[2:]}
        return ports | {"text": [self.text], "shifted": shifted, "shifted_text": [self.shifted_text]}

    def measure(self, kind: str, saes: Sequence[Artifact] = (), **inputs: Sequence[Artifact]) -> Evidence:
        """What a kind finds of the SAEs, or of others."""
        bound = {port: inputs.get(port, self.inputs.get(port, [])) for port in kinds.get(kind).inputs}
        if kind in ("benchmark.core", "stress.ood"):
            bound["transformer"] = inputs.get("transformer", [self.model])
        bound = {port: artifacts for port, artifacts in bound.items() if artifacts} | {"saes": saes or self.saes}
        spec = {"max_sequences": SEQUENCES} if "max_sequences" in kinds.get(kind).spec.model_fields else {}
        result = self.runner.run(kind, spec, **bound).result
        assert isinstance(result, Evidence)
        return result

    def changed(self, name: str, change: Change) -> list[Artifact]:
        """The SAEs and their halves with other weights."""
        artifacts = []
        for place, sae in enumerate(self.saes):
            whole, half = checkpoint.load(sae.path), checkpoint.load_half(sae.path)
            folder = self.home / f"{name}-{place}"
            folder.mkdir(exist_ok=True)
            checkpoint.save(change(whole), folder, whole.provenance, half and change(half))
            artifacts.append(artifact_in(folder, "sae"))
        return artifacts

    def explained(self, of: Evidence, saes: Sequence[Artifact]) -> Evidence:
        """A result of stress.trained_vs_random as it is of SAEs with other encoders or lengths of decoder rows.

        Their overlaps and the controls are the same, so only explained variance is measured, by the kind's own code.
        """
        test = store.load(self.rows[0].path).part("test")[:]
        loaded = [checkpoint.load(sae.path) for sae in saes]
        halves = [half for half in (checkpoint.load_half(sae.path) for sae in saes) if half is not None]
        measured = Measured()
        table = [
            Member(seed=seed, drift_from_init=None, converged=None, **vars(evaluate(sae, test)))
            for seed, sae in enumerate(loaded)
        ]
        trained_vs_random._means(measured, table, halves, test)
        return with_measured(of, measured)

    def untrained(self, of: Evidence) -> Evidence:
        """`stress.untrained_model` where SAEs on the untrained network have come to rest, by the kind's own code.

        Such a network holds no features, so that its SAEs have nothing in common: Gaussian dictionaries, at half and
        at the whole budget. In the seconds of a test trainings on it do not come to rest.
        """
        test = store.load(self.rows[0].path).part("test")[:]
        loaded = [checkpoint.load(sae.path) for sae in self.saes]
        halves = [half for half in (checkpoint.load_half(sae.path) for sae in self.saes) if half is not None]
        random = [nulls.random_sae(FEATURES, test.mean(0), seed, MOST) for seed in self.seeds]
        draws = {"keep_embeddings": [DoubledOverlaps.of(random, random, test)]}
        measured = untrained_model._measured(DoubledOverlaps.of(loaded, halves, test), draws, paired=True)
        return with_measured(of, measured)

    def transcoder(self) -> Evidence:
        """`stress.transcoder`, which judges the recipe alone and measures no given weights.

        With the higher learning rate of `FASTER` its trainings come to rest in the seconds of a test. The SAEs'
        stability does not settle with it, since there the control is still changing.
        """
        spec = {"recipe": {**self.recipe, **FASTER}, "seeds": list(self.seeds)}
        saes = self.runner.run("train.sae", spec, activations=self.rows[0]).outputs["saes"]
        return self.measure("stress.transcoder", list(saes))

    def honest(self) -> dict[str, Evidence]:
        """By kind, evidence about the SAEs as they are."""
        run = ("stress.trained_vs_random", "benchmark.core", "stress.ood")
        evidence = {kind: self.measure(kind) for kind in run}
        evidence["stress.transcoder"] = self.transcoder()
        return evidence | {"stress.untrained_model": self.untrained(evidence["stress.trained_vs_random"])}


def with_measured(evidence: Evidence, measured: Measured) -> Evidence:
    """Evidence with some figures, and their changes, in place of those that it has."""
    read = Evidence.model_validate(evidence.model_dump(include=set(Evidence.model_fields)))
    statistics = evidence.statistics | measured.statistics
    return read.model_copy(update={"statistics": statistics, "changes": evidence.changes | measured.changes})


def shrunk(factor: float) -> Change:
    """Shorter decoder rows, as an L1 penalty makes them."""
    return lambda sae: replace(sae, W_dec=factor * sae.W_dec)


def without(planted: Planted, features: Sequence[int]) -> Change:
    """The latents of some features never fire."""

    def change(sae: SAE) -> SAE:
        of_latent = (sae.decoder @ planted.directions.T).abs().argmax(1)
        killed = torch.isin(of_latent, torch.tensor(list(features)))
        assert sae.b_enc is not None
        return replace(sae, b_enc=sae.b_enc.masked_fill(killed, -1e4))

    return change


def copying(d: int, turned: int = 0) -> SAE:
    """An SAE that copies rows of width `d`: a latent for each side of each axis, in a basis of its own if `turned`."""
    axes = torch.eye(d)
    if turned:
        axes = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(turned)))[0]
    both = torch.cat([axes, -axes])
    return SAE(
        architecture="relu", W_enc=both.T.contiguous(), b_enc=torch.zeros(2 * d), W_dec=both, b_dec=torch.zeros(d)
    )
