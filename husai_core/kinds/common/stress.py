"""What every stress does: it reads sibling SAEs, trains controls with their recipe and seeds, and says of its figures
whose they are and how far they can be relied on. A stress's own file holds only its question. Light: no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from husai_core.job import Inputs, Job
from husai_core.kinds.kind import BaseSpec, Facts, Port
from husai_core.saes.recipe import SAERecipe
from husai_core.stability import origins

if TYPE_CHECKING:
    from torch import Tensor

    from husai_core.stability.halves import Measured
    from husai_core.stability.result_tables import Member

SAES = Port("sae", "sibling SAEs that differ in their seed alone", many=True, at_least=2)
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

    def check_facts(self, facts: Facts) -> None:
        """Refuse SAEs that are no siblings, a recipe that is not theirs, and imported SAEs that do not fit."""
        saes = facts.get("saes", ())
        if not saes or not all(saes):
            return
        origins.check_siblings(saes, self.recipe)
        if self.recipe is None:
            return
        for rows in filter(None, facts.get("activations", ())):
            origins.check_rows(saes[0], rows)
        for network in filter(None, facts.get("transformer", ())):
            origins.check_network(saes[0], network)


class Stress:
    """One run of a stress: its sibling SAEs (`group`), and the controls that `train` makes with their recipe and seeds,
    one per seed (see `stability.retrain.Trainings.run`).

    Args:
        spec: the stress's spec.
        inputs: the SAEs at port `saes`, and what they were trained on at the ports `ORIGINS`.
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
        self.group = seed_group.read(inputs.many("saes"), spec.recipe)
        self.origins = [artifact for port in ORIGINS for artifact in inputs.many(port)]
        for artifact in self.origins:
            self.group.check(artifact)
        self.trainings = Trainings(job, self.group, trainings)
        self.train = self.trainings.run

    @property
    def paired(self) -> bool:
        """True when the SAEs share their seeds with the controls, so that differences are figures about one seed."""
        return not self.group.imported

    def members(self, rows: Tensor) -> list[Member]:
        """The table of the SAEs that the stress is about, on held-out rows [n, d_in]."""
        from husai_core.stability.retrain import member

        facts = zip(self.group.saes, self.group.seeds, self.group.drift, self.group.converged, strict=True)
        return [member(sae, seed, drift, converged, rows) for sae, seed, drift, converged in facts]

    def evidence(self, measured: Measured) -> dict[str, Any]:
        """The fields that the results of all stresses have in common, once every control has been trained."""
        return {
            "statistics": measured.statistics,
            "changes": measured.changes,
            "subject": self.group.digests,
            "converged": self.trainings.converged,
            "imported": self.group.imported,
            "provenance": self.group.provenance,
            "control_rows": self.trainings.rows,
            "retrained": self.group.imported and self.trainings.count > 0,
            "unconverged": self.trainings.unconverged,
            "siblings_left_out": self.group.siblings_left_out,
            "leaks_label": any(self.group.leaks_label(artifact) for artifact in self.origins),
        }
