"""The SAEs that a stress is about: checkpoints that differ in their seed alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from husai_core.kinds.base import Artifact, KindError
from husai_core.saes import checkpoint
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE

ORIGIN = ("recipe", "hook_name", "position", "model_digest", "activations_digest")


@dataclass(frozen=True)
class Siblings:
    """Loaded checkpoints in the order given, and what they have in common."""

    digests: list[str]
    saes: list[SAE]
    recipe: SAERecipe
    seeds: list[int]
    hook_name: str
    position: str

    def drift(self) -> list[float]:
        """Per member, mean |cosine| between final and initial decoder rows."""
        return [float(sae.provenance["drift_from_init"]) for sae in self.saes]

    def leaks_label(self, artifact: Artifact) -> bool:
        """True when the input shows the answer: at the SAEs' position, or as this artifact they come from says."""
        cfg = json.loads((artifact.path / "cfg.json").read_bytes())
        return self.position == "answer_token" or bool(cfg["leaks_label"])

    def check(self, artifact: Artifact) -> None:
        """Raise KindError unless the SAEs were trained on this activations artifact, or on this transformer."""
        name = "model_digest" if artifact.type == "transformer" else "activations_digest"
        if self.saes[0].provenance[name] != artifact.digest:
            raise KindError(f"the SAEs were not trained on this {artifact.type} artifact ({artifact.digest[:12]})")


def read(artifacts: Sequence[Artifact]) -> Siblings:
    """Load checkpoints and make sure that they are siblings.

    Raises:
        KindError: a checkpoint does not say how it was trained, was imported, is a transcoder, or is no sibling of
            the first or a copy of another.
    """
    saes = [checkpoint.load(artifact.path) for artifact in artifacts]
    for artifact, sae in zip(artifacts, saes, strict=True):
        _check(artifact.digest[:12], sae)
    first = saes[0].provenance
    for name in ORIGIN:
        if any(sae.provenance[name] != first[name] for sae in saes):
            raise KindError(f"the SAEs differ in more than their seed: they do not have one {name.replace('_', ' ')}")
    seeds = [int(sae.provenance["seed"]) for sae in saes]
    if len(set(seeds)) < len(seeds):
        raise KindError(f"two of the SAEs have the same seed: {sorted(seeds)}")
    if any(torch.equal(one.W_dec, other.W_dec) for one, other in combinations(saes, 2)):
        raise KindError("two of the SAEs have the same decoder weights, so they are one training under two seeds")
    digests = [artifact.digest for artifact in artifacts]
    return Siblings(digests, saes, checkpoint.recipe(saes[0]), seeds, first["hook_name"], first["position"])


def _check(name: str, sae: SAE) -> None:
    if sae.provenance.get("imported"):
        raise KindError(f"SAE {name} was imported: such a checkpoint does not say reliably how it was trained")
    needed = ("seed", "converged", "drift_from_init", *ORIGIN)
    if missing := [entry for entry in needed if entry not in sae.provenance]:
        raise KindError(
            f"SAE {name} cannot be compared with its retrained controls: its cfg.json lacks {', '.join(missing)}"
        )
    if sae.transcoder:
        raise KindError(f"SAE {name} is a transcoder; stresses start from SAEs")
