"""Do other seeds find the same features, beyond chance?

Every overlap of every pair of sibling SAEs, over all features and over those that fire on the test rows, beside its
nulls: Gaussian dictionaries of the same shape (for activation-matched overlaps: untrained SAEs on the same rows), and
the same recipe and seeds trained on shuffled activations, where every dimension is permuted on its own. The excess is
over the larger null. MMCS is given signed; averaged over both directions, absolute MMCS is PWMCC.
"""

from __future__ import annotations

from pydantic import Field

from husai_core.kinds.base import Evidence, Inputs, Job, Port
from husai_core.kinds.base import Spec as BaseSpec
from husai_core.stability.panels import Matrix, Member

INPUTS = {
    "saes": Port("sae", "sibling SAEs that differ in their seed alone", many=True, at_least=2),
    "activations": Port("activations", "the rows that they were trained on"),
}
OUTPUTS: dict[str, Port] = {}


class Spec(BaseSpec):
    """How the control is made."""

    control_seed: int = Field(0, ge=0, description="seed of the shuffling of the activations")


class Result(Evidence):
    """Overlaps with their nulls and intervals; `<metric>_alive` is over features that fire on the test rows."""

    seeds: list[int]
    pairs: Matrix = Field(description="PWMCC of every pair of seeds")
    matrices: dict[str, Matrix] = Field(description="every metric of every pair of seeds")
    control_matrices: dict[str, Matrix] = Field(description="the same of the shuffled control")
    members: list[Member]
    control_members: list[Member]


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train the shuffled control and compare."""
    from husai_core.activations.store import load
    from husai_core.seeding import seed_everything
    from husai_core.stability import nulls, siblings
    from husai_core.stability.battery import ACTIVATION, DECODER, SUFFIXES, Group, against_nulls
    from husai_core.stability.intervals import seed_mean
    from husai_core.stability.training import Trainings, member, members

    seed_everything(spec.control_seed)
    given = siblings.read(inputs.many("saes"))
    given.check(inputs.one("activations"))
    rows = load(inputs.one("activations").path)
    test, drift = rows.part("test"), given.drift()
    control_rows = {
        part: nulls.shuffled(rows.part(part), spec.control_seed, part) for part in ("train", "validation", "test")
    }
    training = Trainings(job, given.recipe, given.seeds, 1)
    control_saes = training.run("shuffled", control_rows["train"], control_rows["validation"])

    trained, control = Group(given.saes, test), Group(control_saes, control_rows["test"])
    random = Group(nulls.random_saes(given.recipe, rows.part("train"), given.seeds), test)
    statistics = {"drift_from_init": seed_mean(drift).estimate()}
    for metric in (name + suffix for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES):
        chance = random.statistic(metric) if metric.startswith(ACTIVATION) else trained.gaussian(metric)
        statistics |= against_nulls(metric, trained.statistic(metric), chance, control.statistic(metric))
    return Result(
        subject=given.digests,
        converged=given.converged and all(sae.converged for sae in control_saes),
        statistics=statistics,
        seeds=given.seeds,
        pairs=trained.matrices["pwmcc"],
        matrices=trained.matrices,
        control_matrices=control.matrices,
        members=[
            member(sae, seed, moved, sae.provenance["converged"], test)
            for sae, seed, moved in zip(given.saes, given.seeds, drift, strict=True)
        ],
        control_members=members(control_saes, control_rows["test"]),
    )
