"""Do other seeds find the same features, beyond chance?

Every overlap of every pair of sibling SAEs, over all features and over those that fire on the test rows, beside its
nulls: Gaussian dictionaries of the same shape (for activation-matched overlaps: untrained SAEs on the same rows), and
the same recipe and seeds trained on two controls: shuffled activations, where every dimension is permuted on its own,
and Gaussian rows with the covariance of the activations. The excess is over the largest null. MMCS is given signed;
averaged over both directions, absolute MMCS is PWMCC. Explained variance is that of the given SAEs on the test rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common.stress import Spec as Retraining
from husai_core.kinds.kind import Kind, Port
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from husai_core.activations.store import Activations
    from husai_core.stability.battery import Group

INPUTS = {
    "saes": Port("sae", "sibling SAEs that differ in their seed alone", many=True, at_least=2),
    "activations": Port("activations", "the rows that they were trained on"),
}
MEANS = ("explained_variance", "drift_from_init")


class Spec(Retraining):
    """How the controls are made."""

    control_seed: int = Field(0, ge=0, lt=2**53, description="seed of the shuffling and of the Gaussian rows")


class Control(BaseResult):
    """The same recipe and seeds on rows that hold no features."""

    matrices: dict[str, Matrix] = Field(description="every metric of every pair of seeds")
    members: list[Member]


class Result(Evidence):
    """Overlaps with their nulls and intervals; `<metric>_alive` is over features that fire on the test rows."""

    seeds: list[int]
    pairs: Matrix = Field(description="PWMCC of every pair of seeds")
    matrices: dict[str, Matrix] = Field(description="every metric of every pair of seeds")
    members: list[Member]
    controls: dict[str, Control] = Field(description="`shuffled` and `covariance`")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train the controls and compare."""
    from husai_core.activations.store import load
    from husai_core.seeding import seed_everything
    from husai_core.stability import nulls, seed_group
    from husai_core.stability.battery import Group
    from husai_core.stability.intervals import seed_mean
    from husai_core.stability.retrain import Trainings, member, members

    seed_everything(spec.control_seed)
    given = seed_group.read(inputs.many("saes"), spec.recipe)
    given.check(inputs.one("activations"))
    rows = load(inputs.one("activations").path)
    test = rows.part("test")[:]
    noise = {name: _noise(name, rows, spec.control_seed) for name in ("shuffled", "covariance")}
    training = Trainings(job, given, len(noise))
    saes = {name: training.run(name, parts["train"], parts["validation"]) for name, parts in noise.items()}

    trained = Group(given.saes, test)
    controls = {name: Group(saes[name], parts["test"]) for name, parts in noise.items()}
    random = Group(nulls.random_saes(given.recipe, rows.part("train")[:], given.seeds), test)
    table = [
        member(sae, seed, moved, rested, test)
        for sae, seed, moved, rested in zip(given.saes, given.seeds, given.drift, given.converged, strict=True)
    ]
    known = MEANS[:1] if given.imported else MEANS
    means = {name: seed_mean([getattr(row, name) for row in table]).estimate() for name in known}
    return Result(
        subject=given.digests,
        converged=training.converged,
        imported=given.imported,
        unconverged=training.unconverged,
        leaks_label=given.leaks_label(inputs.one("activations")),
        statistics=means | _overlaps(trained, random, controls, not given.imported),
        seeds=given.seeds,
        pairs=trained.matrices["pwmcc"],
        matrices=trained.matrices,
        members=table,
        controls={
            name: Control(matrices=group.matrices, members=members(saes[name], noise[name]["test"]))
            for name, group in controls.items()
        },
    )


def _overlaps(trained: Group, random: Group, controls: Mapping[str, Group], paired: bool) -> dict[str, Estimate]:
    """Every overlap with its nulls and its excess."""
    from husai_core.stability.battery import ACTIVATION, DECODER, SUFFIXES, against_nulls

    found = dict[str, Estimate]()
    for metric in (name + suffix for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES):
        chance = random.statistic(metric) if metric.startswith(ACTIVATION) else trained.gaussian(metric)
        compared = {name: group.statistic(metric) for name, group in controls.items()}
        found |= against_nulls(metric, trained.statistic(metric), chance, compared, paired)
    return found


def _noise(name: str, rows: Activations, seed: int) -> dict[str, Tensor]:
    """A control's rows by split."""
    from husai_core.stability import nulls

    parts = {part: rows.part(part)[:] for part in ("train", "validation", "test")}
    if name == "shuffled":
        return {part: nulls.shuffled(found, seed, part) for part, found in parts.items()}
    return {part: nulls.covariance_matched(found, parts["train"], seed, part) for part, found in parts.items()}


KIND = Kind(spec=Spec, result=Result, inputs=INPUTS, run=run)
