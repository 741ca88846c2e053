"""The SAEs that a stress or a benchmark is about: checkpoints that differ in their seed alone.

An imported SAE does not say reliably how it was trained. Its user may say so, or else its files: then that recipe is
retrained like any other, its place among the SAEs stands for its seed, and its convergence stays unknown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch

from husai_core.data.modular import POSITIONS
from husai_core.errors import UserError
from husai_core.evidence import Provenance
from husai_core.job import Artifact
from husai_core.models import hooks, language
from husai_core.saes import checkpoint
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE
from husai_core.stability import origins
from husai_core.stability.overlap import pwmcc

ORIGIN = ("recipe", "hook_name", "position", "model_digest", "activations_digest")
COPIED = 0.9999
"""PWMCC from which two imported SAEs are one in other units, order or precision."""
LEAST_SEEDS = 3
"""Seeds from which on figures have an interval."""


@dataclass(frozen=True, kw_only=True)
class SAEGroup:
    """Loaded checkpoints in the order given, and what they have in common; see `siblings`.

    `seeds` of imported SAEs are their places, counted from 0; their `drift` and `converged` are unknown.
    """

    digests: list[str]
    saes: list[SAE]
    seeds: list[int]
    hook_name: str
    position: str
    imported: bool

    @property
    def provenance(self) -> Provenance:
        """What shows how they were trained; of imported ones, their user or their files say it."""
        return "claimed" if self.imported else "trained here"

    @property
    def drift(self) -> list[float | None]:
        """Per member, mean |cosine| between final and initial decoder rows."""
        return [sae.provenance.get("drift_from_init") for sae in self.saes]

    @property
    def converged(self) -> list[bool | None]:
        """Per member, whether its training came to rest."""
        return [sae.provenance["converged"] for sae in self.saes]

    @property
    def siblings_left_out(self) -> int | None:
        """How many seeds the trainings of these SAEs had besides theirs, as whoever picks seeds would leave out.

        None where an SAE does not say which seeds were trained with it.
        """
        banks = [sae.provenance.get("bank_seeds") for sae in self.saes]
        if self.imported or None in banks:
            return None
        return len({int(seed) for bank in banks for seed in bank or []} - set(self.seeds))

    def leaks_label(self, artifact: Artifact) -> bool:
        """True when the input shows the answer: at the SAEs' position, or as this artifact they come from says."""
        cfg = _cfg(artifact)
        claimed = [sae.provenance.get("claimed", {}).get("position") for sae in self.saes]
        return "answer_token" in (self.position, *claimed) or bool(cfg["leaks_label"])

    def check(self, artifact: Artifact) -> None:
        """Raise UserError unless the SAEs were trained on this activations artifact, or on this transformer.

        Of imported SAEs that is unknown; they must fit it.
        """
        name = "model_digest" if artifact.type == "transformer" else "activations_digest"
        if self.imported:
            self._fits(artifact)
        elif self.saes[0].provenance[name] not in _digests(artifact):
            raise UserError(f"the SAEs were not trained on this {artifact.type} artifact ({artifact.digest[:12]})")

    def check_width(self, width: int) -> None:
        """Raise UserError unless the SAEs can read rows of this width."""
        origins.check_width(self.saes[0].d_in, width)

    def _fits(self, artifact: Artifact) -> None:
        bound = _cfg(artifact)
        sae = {"d_in": self.saes[0].d_in, "husai": self.saes[0].provenance}
        if artifact.type == "activations":
            origins.check_rows(sae, bound)
            return
        if hooks.is_for_addition(bound) and self.position not in POSITIONS:
            raise UserError(origins.PLACE_UNKNOWN)
        origins.check_network(sae, bound)


@dataclass(frozen=True, kw_only=True)
class SeedGroup(SAEGroup):
    """SAEs whose training can be repeated with their `recipe`; see `read`."""

    recipe: SAERecipe
    halves: list[SAE]
    """The same trainings' SAEs at half the tokens; empty where a checkpoint has none."""


def read(artifacts: Sequence[Artifact], recipe: SAERecipe | None = None) -> SeedGroup:
    """`siblings` with the recipe that trained them; `recipe` is what the user says of imported ones.

    Raises:
        UserError: as `siblings`; or the recipe is missing, given without need, or not theirs.
    """
    cfgs = [_cfg(artifact) for artifact in artifacts]
    origins.check_siblings(cfgs, recipe)
    group = siblings(artifacts)
    halves = _halves(artifacts, group.saes)
    if not group.imported:
        return SeedGroup(**vars(group), recipe=checkpoint.recipe(group.saes[0]), halves=halves)
    recipe = recipe or origins.claimed(cfgs)
    if recipe.architecture == "switch":
        experts = _experts(group.saes[0])
        origins.check_made(
            "switch", recipe, {"architecture": "switch", "d_sae": group.saes[0].d_sae} | experts, list(experts)
        )
    return SeedGroup(**vars(group), recipe=recipe, halves=halves)


def retrained(
    artifacts: Sequence[Artifact], imported: Sequence[Artifact], recipe: SAERecipe | None = None
) -> SeedGroup:
    """SAEs that were trained here by the claimed recipe of imported ones.

    Args:
        artifacts: their checkpoints.
        imported: those of the imported SAEs.
        recipe: what the user says of these; None: what their files claim.

    Raises:
        UserError: they are no siblings, imported themselves, or of another recipe or hook.
    """
    origins.check_retrained([_cfg(artifact) for artifact in imported], [_cfg(a) for a in artifacts], recipe)
    return read(artifacts)


def joined(imported: SeedGroup, retrained: SeedGroup) -> SeedGroup:
    """Imported SAEs and their retrained siblings as one group, in this order; its seeds are places.

    Raises:
        UserError: an imported SAE is one of the retrained ones.
    """
    if any(alike(a, b) for a in imported.saes for b in retrained.saes):
        raise UserError("one of the imported SAEs is among the retrained ones; train these with other seeds")
    saes = [*imported.saes, *retrained.saes]
    halves = [*imported.halves, *retrained.halves]
    seeds = list(range(len(saes)))
    return replace(imported, saes=saes, seeds=seeds, halves=halves if len(halves) == len(saes) else [])


def siblings(artifacts: Sequence[Artifact]) -> SAEGroup:
    """Load one or more checkpoints and make sure that they differ in their seed alone.

    Raises:
        UserError: a checkpoint does not say how it was trained, is a transcoder, or is no sibling of the first or a
            copy of another; or some SAEs were imported and others not.
    """
    origins.check_alike([_cfg(artifact) for artifact in artifacts])
    saes = [checkpoint.load(artifact.path) for artifact in artifacts]
    imported = bool(saes[0].provenance.get("imported"))
    origins.check_equal([_experts(sae) for sae in saes], ["experts"])
    seeds = list(range(len(saes))) if imported else _seeds([artifact.digest[:12] for artifact in artifacts], saes)
    are_copies = alike if imported else _equal_weights
    if any(are_copies(a, b) for a, b in combinations(saes, 2)):
        raise UserError("two of the SAEs have the same decoder weights, so they are one training under two seeds")
    known = {name: saes[0].provenance[name] or origins.UNKNOWN for name in origins.PLACE}
    digests = [artifact.digest for artifact in artifacts]
    return SAEGroup(digests=digests, saes=saes, seeds=seeds, **known, imported=imported)


def _halves(artifacts: Sequence[Artifact], saes: Sequence[SAE]) -> list[SAE]:
    """The SAEs at half the tokens that the checkpoints hold; none unless all hold one."""
    halves = [half for half in (checkpoint.load_half(artifact.path) for artifact in artifacts) if half is not None]
    if len(halves) < len(saes):
        return []
    for half, whole in zip(halves, saes, strict=True):
        if half.W_dec.shape != whole.W_dec.shape or half.transcoder:
            raise UserError("the half of a checkpoint is of another shape than its SAE")
    return halves


def _digests(artifact: Artifact) -> list[str]:
    """What names an artifact in the provenance of SAEs: a language model's weights name it, too."""
    if not (artifact.path / "config.json").is_file():
        return [artifact.digest]
    return [artifact.digest, language.weights_digest(artifact.path)]


def _cfg(artifact: Artifact) -> dict[str, Any]:
    cfg: dict[str, Any] = json.loads((artifact.path / "cfg.json").read_bytes())
    return cfg


def _seeds(names: Sequence[str], saes: Sequence[SAE]) -> list[int]:
    """The seeds of SAEs that say how they were trained."""
    needed = ("seed", "converged", "drift_from_init", *ORIGIN)
    for name, sae in zip(names, saes, strict=True):
        if missing := [entry for entry in needed if entry not in sae.provenance]:
            raise UserError(
                f"SAE {name} cannot be compared with its retrained controls: its cfg.json lacks {', '.join(missing)}"
            )
    origins.check_equal([sae.provenance for sae in saes], ORIGIN)
    seeds = [int(sae.provenance["seed"]) for sae in saes]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"two of the SAEs have the same seed: {sorted(seeds)}")
    return seeds


def _experts(sae: SAE) -> dict[str, int | None]:
    return {"experts": None if sae.W_router is None else sae.W_router.shape[1]}


def _equal_weights(a: SAE, b: SAE) -> bool:
    return torch.equal(a.W_dec, b.W_dec)


def alike(a: SAE, b: SAE) -> bool:
    """Whether two SAEs are one, whatever the units, order or precision of their latents."""
    return pwmcc(a.decoder, b.decoder) > COPIED
