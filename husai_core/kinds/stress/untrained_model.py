"""Is the overlap higher than for SAEs on an untrained network (Heap et al. 2025, arXiv 2501.17727)?

The same recipe and seeds are trained on activations of a network of the same shape with random weights, read at the
same hook, from the same inputs with the same split. One such network is drawn, so the interval covers the seeds of the
SAEs and not the draw of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from husai_core.errors import UserError
from husai_core.estimate import Estimate
from husai_core.evidence import Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common.stress import Spec as Retraining
from husai_core.kinds.kind import Kind, Port
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from husai_core.stability.battery import Group

INPUTS = {
    "saes": Port("sae", "sibling SAEs that differ in their seed alone", many=True, at_least=2),
    "activations": Port("activations", "the rows that they were trained on"),
    "transformer": Port("transformer", "the trained network that gave the rows"),
}
METRICS = ("pwmcc", "pwmcc_alive", "pw_mcc", "activation_mcc")


class Spec(Retraining):
    """Which random weights."""

    network_seed: int = Field(1000, ge=0, lt=2**53, description="seed of the weights of the untrained network")


class Result(Evidence):
    """Overlaps on the trained and on the untrained network, and their differences, paired by seed."""

    seeds: list[int]
    pairs: Matrix = Field(description="PWMCC of every pair of seeds on the trained network")
    untrained_pairs: Matrix = Field(description="PWMCC of every pair of seeds on the untrained network")
    effective_rank: float = Field(description="of the activations of the trained network")
    untrained_effective_rank: float = Field(description="of the activations of the untrained network")
    untrained_members: list[Member]


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train on the untrained network and compare."""
    from husai_core.activations.rank import effective_rank
    from husai_core.activations.store import load
    from husai_core.models import modular
    from husai_core.seeding import seed_everything
    from husai_core.stability import seed_group
    from husai_core.stability.battery import Group
    from husai_core.stability.retrain import Trainings, members

    seed_everything(spec.network_seed)
    given = seed_group.read(inputs.many("saes"), spec.recipe)
    given.check(inputs.one("activations"))
    given.check(inputs.one("transformer"))
    rows = load(inputs.one("activations").path)
    if rows.source != "model":
        raise UserError(f"this stress is about networks for addition (source 'model'), not source {rows.source!r}")
    if rows.model_digest != inputs.one("transformer").digest:
        raise UserError("the activations are not of this transformer")
    network = modular.build(modular.read_config(inputs.one("transformer").path), spec.network_seed, job.device)
    untrained_rows = modular.activations(network, rows.tokens, [given.hook_name], given.position)[given.hook_name]
    train, validation, test = (untrained_rows[rows.mask(part)] for part in ("train", "validation", "test"))
    training = Trainings(job, given, 1)
    saes = training.run("untrained", train, validation)

    trained, untrained = Group(given.saes, rows.part("test")[:]), Group(saes, test)
    return Result(
        subject=given.digests,
        converged=training.converged,
        imported=given.imported,
        unconverged=training.unconverged,
        leaks_label=given.leaks_label(inputs.one("activations")) or given.leaks_label(inputs.one("transformer")),
        statistics=_statistics(trained, untrained, not given.imported),
        seeds=given.seeds,
        pairs=trained.matrices["pwmcc"],
        untrained_pairs=untrained.matrices["pwmcc"],
        effective_rank=rows.moments.effective_rank,
        untrained_effective_rank=effective_rank(untrained_rows),
        untrained_members=members(saes, test),
    )


def _statistics(trained: Group, untrained: Group, paired: bool) -> dict[str, Estimate]:
    """Per metric both overlaps and their difference; of PWMCC also the Gaussian null and both excesses over it."""
    found = dict[str, Estimate]()
    for metric in METRICS:
        own, other = trained.statistic(metric), untrained.statistic(metric)
        difference = "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained"
        found |= {f"{metric}_trained": own.estimate(), f"{metric}_untrained": other.estimate()}
        found[difference] = own.above(other, paired).estimate()
    null = trained.gaussian("pwmcc")
    found["pwmcc_gaussian_null"] = null.estimate()
    found["pwmcc_trained_excess"] = trained.statistic("pwmcc").minus(null.independent).estimate()
    found["pwmcc_untrained_excess"] = untrained.statistic("pwmcc").minus(null.independent).estimate()
    return found


KIND = Kind(spec=Spec, result=Result, inputs=INPUTS, run=run)
