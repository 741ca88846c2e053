"""What every stress does: it reads sibling SAEs, trains controls with their recipe and seeds, and says of its figures
whose they are and how far they can be relied on. A stress's own file holds only its question. Light: no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from husai_core.errors import UserError
from husai_core.evidence import RecipeCheck
from husai_core.job import Inputs, Job
from husai_core.kinds.kind import BaseSpec, Facts, Port
from husai_core.saes.recipe import SAERecipe
from husai_core.stability import origins

if TYPE_CHECKING:
    from torch import Tensor

    from husai_core.stability.halves import Measured
    from husai_core.stability.result_tables import Member
    from husai_core.stability.seed_group import SeedGroup

SIBLINGS = Port("sae", "sibling SAEs that differ in their seed alone", many=True, at_least=2)
SAES = Port(
    "sae", "sibling SAEs that differ in their seed alone; imported ones may be one, with `retrained`", many=True
)
RETRAINED = Port(
    "sae",
    "of imported SAEs: those that train.sae made of the same activations, by the recipe that is claimed of them",
    many=True,
    required=False,
    at_least=origins.LEAST_RETRAINED,
)
LEAST_SAES = 2
ALONE = (
    "seeds are compared, and this is one SAE: give its siblings too, or, of an imported one, SAEs that train.sae made "
    "by its recipe (input retrained)"
)
ORIGINS = ("activations", "transformer")
"""Input ports that bind what the SAEs were trained on."""


class StressSpec(BaseSpec):
    """Base of a stress's spec."""

    recipe: SAERecipe | None = Field(
        None,
        description="how imported SAEs were trained, as a recipe of train.sae; if left out, as their files claim",
    )

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.recipe:
            self.recipe.check_read([self.recipe.architecture])
        return self

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse retrained SAEs without rows on which to compare them with the imported ones."""
        if "retrained" in bound and "activations" not in bound:
            raise UserError("with retrained, give the activations, too, that these SAEs were trained on")

    def check_facts(self, facts: Facts) -> None:
        """Refuse SAEs that are no siblings, a recipe that is not theirs, and imported SAEs that do not fit."""
        saes, retrained = facts.get("saes", ()), facts.get("retrained", ())
        if not saes or not all(saes):
            return
        origins.check_siblings(saes, self.recipe)
        if all(retrained):
            self._check_retrained(saes, retrained)
        if self.recipe is None:
            return
        for rows in filter(None, facts.get("activations", ())):
            origins.check_rows(saes[0], rows)
        for network in filter(None, facts.get("transformer", ())):
            origins.check_network(saes[0], network)

    def _check_retrained(self, saes: Sequence[Mapping[str, Any]], retrained: Sequence[Mapping[str, Any]]) -> None:
        if retrained:
            origins.check_retrained(saes, retrained, self.recipe)
        elif len(saes) < LEAST_SAES:
            raise UserError(ALONE)


class Stress:
    """One run of a stress: its sibling SAEs (`group`), and the controls that `train` makes with their recipe and seeds,
    one per seed (see `stability.retrain.Trainings.run`).

    Of imported SAEs there may be `retrained` ones, by the recipe that is claimed of them. Then these share their seeds
    with the controls, and one or two imported SAEs form a group with them.

    Args:
        spec: the stress's spec.
        inputs: the SAEs at port `saes`, and what they were trained on at the ports `ORIGINS`; perhaps retrained SAEs.
        job: what the trainings report to.
        trainings: how often `train` will be called, so that all of them are one progress.
        seed: seeds every generator.

    Raises:
        UserError: the SAEs are no siblings, or were not trained on what is bound.
    """

    def __init__(self, spec: StressSpec, inputs: Inputs, job: Job, *, trainings: int, seed: int) -> None:
        from husai_core.seeding import seed_everything
        from husai_core.stability import seed_group
        from husai_core.stability.retrain import Trainings

        seed_everything(seed)
        saes, retrained = inputs.many("saes"), inputs.many("retrained")
        if len(saes) + len(retrained) < LEAST_SAES:
            raise UserError(ALONE)
        self.job, self.subject = job, seed_group.read(saes, spec.recipe)
        self.retrained = seed_group.retrained(retrained, saes, spec.recipe) if retrained else None
        self.group = self.subject
        if self.retrained and len(saes) < seed_group.LEAST_SEEDS:
            self.group = seed_group.joined(self.subject, self.retrained)
        self.origins = [artifact for port in ORIGINS for artifact in inputs.many(port)]
        for artifact in self.origins:
            self.subject.check(artifact)
            if self.retrained:
                self.retrained.check(artifact)
        self.rows = inputs.maybe("activations")
        seeds = self.retrained.seeds if self.retrained else None
        self.trainings = Trainings(job, self.subject, trainings, seeds)
        self.train = self.trainings.run

    @property
    def paired(self) -> bool:
        """True when the SAEs share their seeds with the controls, so that differences are figures about one seed."""
        return not self.group.imported

    @property
    def groups(self) -> list[tuple[SeedGroup, bool]]:
        """The groups whose figures are wanted, and whether each is paired with the controls; see `measured`.

        Where imported SAEs bring no halves, the retrained ones come behind them.
        """
        more = [(self.retrained, True)] if self.retrained and not self.group.halves else []
        return [(self.group, self.paired), *more]

    def measured(self, figures: Sequence[Measured]) -> Measured:
        """The figures of the SAEs from those of each of `groups`: what the last doubling changed is the last one's."""
        from husai_core.stability.halves import Measured

        return Measured(figures[0].statistics, {**figures[0].changes, **figures[-1].changes})

    def members(self, rows: Tensor, group: SeedGroup | None = None) -> list[Member]:
        """The table of the SAEs that the stress is about, or of another group, on held-out rows [n, d_in]."""
        from husai_core.stability.retrain import member

        shown = group or self.group
        facts = zip(shown.saes, shown.seeds, shown.drift, shown.converged, strict=True)
        return [member(sae, seed, drift, converged, rows) for sae, seed, drift, converged in facts]

    def evidence(self, measured: Measured) -> dict[str, Any]:
        """The fields that the results of all stresses have in common, once every control has been trained."""
        return {
            "statistics": measured.statistics,
            "changes": measured.changes,
            "subject": self.subject.digests,
            "converged": self.trainings.converged,
            "imported": self.group.imported,
            "provenance": self.group.provenance,
            "control_rows": self.trainings.rows,
            "retrained": self.group.imported and (self.trainings.count > 0 or self.retrained is not None),
            "recipe_check": self._recipe_check(),
            "unconverged": self.trainings.unconverged,
            "siblings_left_out": self.group.siblings_left_out,
            "leaks_label": any(self.group.leaks_label(artifact) for artifact in self.origins),
        }

    def _recipe_check(self) -> RecipeCheck | None:
        """Imported SAEs beside the retrained ones, on the held-out rows; None where there are none."""
        from husai_core.activations.store import load
        from husai_core.stability import agreement

        if self.retrained is None or self.rows is None:
            return None
        test, here = load(self.rows.path).part("test"), self.retrained
        return agreement.check(self.subject.saes, here.saes, here.digests, test, self.job.device)
