"""Is the overlap higher than for SAEs on an untrained network (Heap et al. 2025, arXiv 2501.17727)?

The same recipe and seeds are trained on activations of a network of the same shape with random weights, read at the
same hook, from the same inputs with the same split. One such network is drawn, so the interval covers the seeds of the
SAEs and not the draw of the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.errors import UserError
from husai_core.evidence import Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common import stress_panels, work
from husai_core.kinds.common.stress import SAES, Stress, StressSpec
from husai_core.kinds.kind import Facts, Kind, Port, Work
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from husai_core.stability.halves import Measured
    from husai_core.stability.pairwise import DoubledOverlaps

INPUTS = {
    "saes": SAES,
    "activations": Port("activations", "the rows that they were trained on"),
    "transformer": Port("transformer", "the trained network that gave the rows"),
}
METRICS = ("pwmcc", "pwmcc_alive", "pw_mcc", "activation_mcc")


class Spec(StressSpec):
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
    from husai_core.stability.pairwise import DoubledOverlaps
    from husai_core.stability.retrain import halves, members

    stress = Stress(spec, inputs, job, trainings=1, seed=spec.network_seed)
    group = stress.group
    rows = load(inputs.one("activations").path)
    if rows.source != "model":
        raise UserError(f"this stress is about networks for addition (source 'model'), not source {rows.source!r}")
    if rows.model_digest != inputs.one("transformer").digest:
        raise UserError("the activations are not of this transformer")
    network = modular.build(modular.read_config(inputs.one("transformer").path), spec.network_seed, job.device)
    untrained_rows = modular.activations(network, rows.tokens, [group.hook_name], group.position)[group.hook_name]
    train, validation, test = (untrained_rows[rows.mask(split)] for split in ("train", "validation", "test"))
    saes = stress.train("untrained", train, validation)

    trained = DoubledOverlaps.of(group.saes, group.halves, rows.part("test")[:])
    untrained = DoubledOverlaps.of(saes, halves(saes), test)
    return Result(
        **stress.evidence(_measured(trained, untrained, stress.paired)),
        seeds=group.seeds,
        pairs=trained.whole.matrices["pwmcc"],
        untrained_pairs=untrained.whole.matrices["pwmcc"],
        effective_rank=rows.moments.effective_rank,
        untrained_effective_rank=effective_rank(untrained_rows),
        untrained_members=members(saes, test),
    )


def _measured(trained: DoubledOverlaps, untrained: DoubledOverlaps, paired: bool) -> Measured:
    """Per metric both overlaps and their difference; of PWMCC also the Gaussian null and both excesses over it."""
    from husai_core.stability.halves import Measured, excess, plain, rescaled_excess
    from husai_core.stability.pairwise import value_range

    measured = Measured()
    for metric in METRICS:
        on_trained, on_untrained = trained.statistic(metric), untrained.statistic(metric)
        difference = "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained"
        for network, overlap in (("trained", on_trained), ("untrained", on_untrained)):
            measured.add(f"{metric}_{network}", plain(overlap), value_range(metric))
        measured.add(difference, excess(on_trained, on_untrained, paired))
    null = trained.gaussian("pwmcc")
    measured.statistics["pwmcc_gaussian_null"] = null.whole.estimate()
    for network, overlaps in (("trained", trained), ("untrained", untrained)):
        overlap = overlaps.statistic("pwmcc")
        measured.add(f"pwmcc_{network}_excess", excess(overlap, null, paired=False))
        measured.add(f"pwmcc_{network}_excess_rescaled", rescaled_excess(overlap, null, paired=False))
    return measured


def present(result: Result) -> list[panels.AnyPanel]:
    """The overlap on both networks, their difference, and every pair of seeds."""
    statistics = result.statistics
    difference = statistics.get("trained_minus_untrained")
    compared = {"above": "Training the network makes seeds agree more", "below": "Training makes seeds agree less"}
    text = (
        f"{compared.get(common.side(difference), 'Whether seeds agree more on the trained network is undecided')}: "
        f"{stress_panels.PWMCC} is {common.interval(statistics.get('pwmcc_trained'))} there and "
        f"{common.interval(statistics.get('pwmcc_untrained'))} on a network with random weights, a difference of "
        f"{common.interval(difference)}."
    )
    ranks = (result.effective_rank, result.untrained_effective_rank)
    headline = stress_panels.headline(result, text, [("trained minus untrained", "trained_minus_untrained")])
    headline = headline.model_copy(
        update={
            "figures": [
                *headline.figures,
                panels.Figure(label="effective rank, trained", value=common.finite(ranks[0])),
                panels.Figure(label="effective rank, untrained", value=common.finite(ranks[1])),
            ]
        }
    )
    chance = statistics.get("pwmcc_gaussian_null")
    maps = {"trained": result.pairs, "untrained": result.untrained_pairs}
    return [
        headline,
        _levels(result),
        _differences(result),
        *stress_panels.changes(result, ("trained_minus_untrained", "pwmcc_trained", "pwmcc_untrained")),
        *(common.pair_map(m, result.seeds, f"Every pair of seeds, {name} network", chance) for name, m in maps.items()),
        *common.members_table({"untrained": result.untrained_members}, "Every SAE on the untrained network"),
        stress_panels.statistics_table(result),
        stress_panels.measures(),
    ]


def _levels(result: Result) -> panels.Intervals:
    """The overlap on both networks beside chance."""
    rows = []
    for name, matrix in (("trained", result.pairs), ("untrained", result.untrained_pairs)):
        points = common.pair_points(matrix, result.seeds)
        rows += common.interval_row(f"{name} network", result.statistics.get(f"pwmcc_{name}"), points)
    rows += common.interval_row("Gaussian decoders", result.statistics.get("pwmcc_gaussian_null"))
    note = (
        "The same recipe and seeds on both networks. One untrained network is drawn, so intervals cover the seeds of "
        "the SAEs and not the draw of the network. A point is a pair of seeds."
    )
    return panels.Intervals(title="Overlap on both networks", note=note, rows=rows, x_label="PWMCC")


def _differences(result: Result) -> panels.Intervals:
    """Trained minus untrained in every measure."""
    rows = []
    for metric in METRICS:
        name = "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained"
        rows += common.interval_row(stress_panels.measure(metric)[0], result.statistics.get(name))
    note = (
        f"Above 0: seeds agree more on the trained network. PWMCC is what release policies read. {stress_panels.POLICY}"
    )
    zero = [panels.Reference(label="no difference", value=0.0)]
    return panels.Intervals(
        title="Trained minus untrained", note=note, rows=rows, references=zero, x_label="difference"
    )


def estimate(spec: Spec, facts: Facts) -> Work:
    """SAEs on the untrained network, and every overlap of both groups."""
    siblings, rows = work.Siblings.of(spec.recipe, facts), work.first(facts, "activations")
    splits = {split: work.split_rows(rows, split) for split in work.SHARES}
    network, count = work.Network.of(work.first(facts, "transformer")), sum(splits.values())
    cost = siblings.training(1, splits["validation"]) + siblings.measured(1, splits["test"])
    cost += siblings.comparison(2 * (1 + siblings.halves), splits["test"])
    cost += work.Cost(network.forward(count * work.LENGTH), network.held(8192, 4))
    return cost.work(work.result_bytes(siblings.seeds, matrices=2), base=4 * siblings.rows_bytes(count))


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    statistics={
        "trained_minus_untrained": ranges.difference(ranges.SHARE),
        "pwmcc_gaussian_null": ranges.SHARE,
        **{f"pwmcc_{network}_excess": ranges.difference(ranges.SHARE) for network in ("trained", "untrained")},
        **{f"pwmcc_{network}_excess_rescaled": ranges.RESCALED for network in ("trained", "untrained")},
        **{name: values for metric in METRICS for name, values in ranges.on_two_networks(metric).items()},
    },
)
