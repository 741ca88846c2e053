"""Is the overlap higher than for SAEs on an untrained network (Heap et al. 2025, arXiv 2501.17727)?

The same recipe and seeds are trained on activations of networks of the same shape with random weights, read at the same
hook, from the same inputs with the same split. Of a network for addition (`transformer`) one such network is drawn. Of
a language model the rows come from train.activations (`untrained`): of networks with all weights fresh, of networks
that keep the embeddings, or both, one or more draws of each. The largest overlap of an untrained network counts.

Where one network is drawn, the interval covers the seeds of the SAEs and not the draw. Of two or more, the overlap is
the mean over draws, and their spread adds to the interval, as units of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.errors import UserError
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import same_rows, stress_panels, work
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common.stress import RETRAINED, SAES, Stress, StressSpec
from husai_core.kinds.common.training import near
from husai_core.kinds.kind import Facts, Kind, Port, Work
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from husai_core.activations.store import Activations
    from husai_core.saes.bank import Rows
    from husai_core.stability.halves import Doubled, Draws, Measured
    from husai_core.stability.nulls import Null
    from husai_core.stability.pairwise import DoubledOverlaps

INPUTS = {
    "saes": SAES,
    "activations": Port("activations", "the rows that they were trained on"),
    "transformer": Port(
        "transformer", "of a network for addition: the trained network that gave the rows", required=False
    ),
    "untrained": Port(
        "activations", "of a language model: the same rows read by untrained networks", many=True, required=False
    ),
    "retrained": RETRAINED,
}
METRICS = ("pwmcc", "pwmcc_alive", "pw_mcc", "activation_mcc")


class Spec(StressSpec):
    """Which random weights."""

    network_seed: int = Field(1000, ge=0, lt=2**53, description="seed of the weights, of a network for addition")

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse anything but one source of untrained networks."""
        super().check_ports(bound)
        if ("transformer" in bound) == ("untrained" in bound):
            raise UserError(
                "bind either transformer (a network for addition) or untrained (activations of an untrained language "
                "model)"
            )

    def check_facts(self, facts: Facts) -> None:
        """Refuse rows of untrained networks that do not fit those of the trained one."""
        super().check_facts(facts)
        same_rows.check_untrained(work.first(facts, "activations"), facts.get("untrained", ()))


class Untrained(BaseResult):
    """SAEs on one untrained network."""

    mode: str = Field(description="`all`: every weight is fresh; `keep_embeddings`: but for the embeddings")
    seed: int = Field(description="of its weights")
    pairs: Matrix = Field(description="PWMCC of every pair of seeds")
    effective_rank: float = Field(description="of its activations")
    members: list[Member]


class Result(Evidence):
    """Overlaps on the trained and on untrained networks, and their differences, paired by seed.

    The figures `untrained_*` are of the network with the largest PWMCC.
    """

    seeds: list[int]
    pairs: Matrix = Field(description="PWMCC of every pair of seeds on the trained network")
    untrained_pairs: Matrix = Field(description="PWMCC of every pair of seeds on the untrained network")
    effective_rank: float = Field(description="of the activations of the trained network")
    untrained_effective_rank: float = Field(description="of the activations of the untrained network")
    untrained_members: list[Member]
    networks: list[Untrained] = Field([], description="every untrained network; absent from earlier results")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train on the untrained networks and compare."""
    from husai_core.activations.store import load
    from husai_core.stability.pairwise import DoubledOverlaps
    from husai_core.stability.retrain import halves, members

    spec.check_ports(inputs.bound)
    stress = Stress(spec, inputs, job, trainings=max(1, len(inputs.many("untrained"))), seed=spec.network_seed)
    rows = load(inputs.one("activations").path)
    networks, overlaps = list[Untrained](), list[DoubledOverlaps]()
    for draw in _language(inputs, rows) if inputs.many("untrained") else _modular(spec, inputs, stress, rows, job):
        saes = stress.train(draw.label, draw.rows("train"), draw.rows("validation"))
        drawn = draw.rows("test")[:]
        overlaps.append(DoubledOverlaps.of(saes, halves(saes), drawn))
        networks.append(
            Untrained(
                mode=draw.mode,
                seed=draw.seed,
                pairs=overlaps[-1].whole.matrices["pwmcc"],
                effective_rank=draw.effective_rank,
                members=members(saes, drawn),
            )
        )
    test, groups = rows.part("test")[:], stress.groups
    trained = [DoubledOverlaps.of(group.saes, group.halves, test) for group, _ in groups]
    figures = [
        _measured(overlap, _by_mode(networks, overlaps), paired)
        for overlap, (_, paired) in zip(trained, groups, strict=True)
    ]
    largest = max(range(len(networks)), key=lambda place: overlaps[place].whole.statistic("pwmcc").value)
    return Result(
        **stress.evidence(stress.measured(figures)),
        seeds=stress.group.seeds,
        pairs=trained[0].whole.matrices["pwmcc"],
        untrained_pairs=networks[largest].pairs,
        effective_rank=rows.moments.effective_rank,
        untrained_effective_rank=networks[largest].effective_rank,
        untrained_members=networks[largest].members,
        networks=networks,
    )


@dataclass(frozen=True)
class _Draw:
    """One untrained network: `rows` gives those of a split [m, d]."""

    mode: str
    seed: int
    label: str
    rows: Callable[[str], Rows]
    effective_rank: float


def _modular(spec: Spec, inputs: Inputs, stress: Stress, rows: Activations, job: Job) -> Iterator[_Draw]:
    """A network for addition with fresh weights."""
    from husai_core.activations.rank import effective_rank
    from husai_core.models import modular

    group = stress.group
    if rows.source != "model":
        raise UserError(f"a transformer is for rows of networks for addition (source 'model'), not {rows.source!r}")
    if rows.model_digest != inputs.one("transformer").digest:
        raise UserError("the activations are not of this transformer")
    network = modular.build(modular.read_config(inputs.one("transformer").path), spec.network_seed, job.device)
    read = modular.activations(network, rows.tokens, [group.hook_name], group.position)[group.hook_name]
    rank = effective_rank(read)
    yield _Draw("all", spec.network_seed, "untrained", lambda split: read[rows.mask(split)], rank)


def _language(inputs: Inputs, rows: Activations) -> Iterator[_Draw]:
    """The rows of untrained language models."""
    import json

    from husai_core.activations.store import load

    artifacts = inputs.many("untrained")
    cfgs = [json.loads((artifact.path / "cfg.json").read_bytes()) for artifact in artifacts]
    trained = json.loads((inputs.one("activations").path / "cfg.json").read_bytes())
    same_rows.check_untrained(trained, cfgs)
    for place, (artifact, cfg) in enumerate(zip(artifacts, cfgs, strict=True)):
        drawn, mode, seed = load(artifact.path), cfg["untrained"], cfg["untrained_seed"]
        same_rows.check_tokens(f"untrained number {place}", drawn, rows)
        yield _Draw(mode, seed, f"untrained {mode} {seed}", partial(_stored, drawn), cfg["effective_rank"])


def _stored(rows: Activations, split: str) -> Rows:
    return near(rows.part(split))


def _by_mode(networks: Sequence[Untrained], overlaps: Sequence[DoubledOverlaps]) -> dict[str, list[DoubledOverlaps]]:
    """The draws of every mode, in the order of `MODES`."""
    groups = {
        mode: [group for network, group in zip(networks, overlaps, strict=True) if network.mode == mode]
        for mode in same_rows.MODES
    }
    return {mode: draws for mode, draws in groups.items() if draws}


def _measured(trained: DoubledOverlaps, untrained: Mapping[str, Sequence[DoubledOverlaps]], paired: bool) -> Measured:
    """Per metric the overlap on the trained and on the untrained networks, the largest, and their difference."""
    from husai_core.stability.halves import Draws, Measured, excess, plain
    from husai_core.stability.pairwise import value_range

    measured = Measured()
    for metric in METRICS:
        on_trained, values, name = trained.statistic(metric), value_range(metric), _difference(metric)
        draws = {mode: Draws([group.statistic(metric) for group in groups]) for mode, groups in untrained.items()}
        levels = {mode: drawn.spread(plain(drawn.mean)) for mode, drawn in draws.items()}
        less = {mode: drawn.spread(excess(on_trained, drawn.mean, paired)) for mode, drawn in draws.items()}
        measured.add(f"{metric}_trained", plain(on_trained), values)
        measured.add_largest(f"{metric}_untrained", list(levels.values()), values)
        measured.add_smallest(name, list(less.values()))
        for mode in draws if len(draws) > 1 else ():
            measured.add(f"{metric}_untrained_{mode}", levels[mode], values)
            measured.add(f"{name}_{mode}", less[mode])
        if metric == "pwmcc":
            _above_chance(measured, Draws([on_trained]), draws, trained.gaussian(metric))
    return measured


def _difference(metric: str) -> str:
    return "trained_minus_untrained" if metric == "pwmcc" else f"{metric}_trained_minus_untrained"


def _above_chance(measured: Measured, trained: Draws, untrained: Mapping[str, Draws], null: Doubled[Null]) -> None:
    """The Gaussian null, and what is left of PWMCC above it on the trained and on the untrained networks."""
    from husai_core.stability.halves import excess, rescaled_excess

    measured.statistics["pwmcc_gaussian_null"] = null.whole.estimate()
    above_null = max(1 - null.whole.mean, 1e-12)
    for network, groups in (("trained", [trained]), ("untrained", [*untrained.values()])):
        above = [drawn.spread(excess(drawn.mean, null, paired=False)) for drawn in groups]
        rescaled = [drawn.spread(rescaled_excess(drawn.mean, null, paired=False), 1 / above_null) for drawn in groups]
        measured.add_largest(f"pwmcc_{network}_excess", above)
        measured.add_largest(f"pwmcc_{network}_excess_rescaled", rescaled)


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
    untrained_seeds = [member.seed for member in result.untrained_members]
    maps = {"trained": (result.pairs, result.seeds), "untrained": (result.untrained_pairs, untrained_seeds)}
    return [
        headline,
        _levels(result),
        _differences(result),
        *stress_panels.changes(result, ("trained_minus_untrained", "pwmcc_trained", "pwmcc_untrained")),
        *stress_panels.recipe_check(result.recipe_check),
        *(common.pair_map(*of, f"Every pair of seeds, {name} network", chance) for name, of in maps.items()),
        *common.members_table(_members(result), "Every SAE on an untrained network"),
        stress_panels.statistics_table(result),
        stress_panels.measures(),
    ]


def _members(result: Result) -> dict[str, list[Member]]:
    """The SAEs of every untrained network."""
    if len(result.networks) < 2:
        return {"untrained": result.untrained_members}
    return {f"{same_rows.MODES.get(n.mode, n.mode)}, seed {n.seed}": n.members for n in result.networks}


def _levels(result: Result) -> panels.Intervals:
    """The overlap on the trained and on every untrained network beside chance."""
    statistics = result.statistics
    trained = common.pair_points(result.pairs, result.seeds)
    rows = common.interval_row("trained network", statistics.get("pwmcc_trained"), trained)
    untrained = common.pair_points(result.untrained_pairs, [member.seed for member in result.untrained_members])
    rows += common.interval_row("untrained network", statistics.get("pwmcc_untrained"), untrained)
    for mode, words in same_rows.MODES.items():
        rows += common.interval_row(f"... {words}", statistics.get(f"pwmcc_untrained_{mode}"), _draws(result, mode))
    rows += common.interval_row("Gaussian decoders", statistics.get("pwmcc_gaussian_null"))
    drawn = max((len(_draws(result, mode)) for mode in same_rows.MODES), default=1)
    note = (
        "The same recipe and seeds on all networks. One untrained network is drawn, so intervals cover the seeds of "
        "the SAEs and not the draw of the network. A point is a pair of seeds."
    )
    if drawn > 1:
        note = (
            "The same recipe and seeds on all networks. Of untrained networks the overlap is the mean over draws, "
            "whose spread is in the interval. A point is a pair of seeds, or by kind of network the mean of one draw."
        )
    return panels.Intervals(title="Overlap on trained and untrained networks", note=note, rows=rows, x_label="PWMCC")


def _draws(result: Result, mode: str) -> list[tuple[str, float]]:
    """The mean overlap on every untrained network of a mode."""
    points = []
    for network in (network for network in result.networks if network.mode == mode):
        pairs = common.pair_points(network.pairs, [member.seed for member in network.members])
        points += [(f"network seed {network.seed}", sum(value for _, value in pairs) / len(pairs))] if pairs else []
    return points


def _differences(result: Result) -> panels.Intervals:
    """Trained minus untrained in every measure."""
    rows = []
    for metric in METRICS:
        name, label = _difference(metric), stress_panels.measure(metric)[0]
        rows += common.interval_row(label, result.statistics.get(name))
        for mode, words in same_rows.MODES.items():
            rows += common.interval_row(f"{label}, {words}", result.statistics.get(f"{name}_{mode}"))
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
    groups, count = max(1, len(facts.get("untrained", ()))), sum(splits.values())
    cost = siblings.training(groups, splits["validation"]) + siblings.measured(groups, splits["test"])
    cost += siblings.comparison((1 + groups) * (1 + siblings.halves) + siblings.retrained, splits["test"])
    cost += siblings.recipe_check(splits["test"])
    if facts.get("transformer"):
        network = work.Network.of(work.first(facts, "transformer"))
        cost += work.Cost(network.forward(count * work.LENGTH), network.held(8192, 4))
    written = groups * work.result_bytes(siblings.seeds) + work.result_bytes(siblings.seeds)
    return cost.work(written, base=4 * siblings.rows_bytes(count))


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    statistics={
        "pwmcc_gaussian_null": ranges.SHARE,
        **{f"pwmcc_{network}_excess": ranges.difference(ranges.SHARE) for network in ("trained", "untrained")},
        **{f"pwmcc_{network}_excess_rescaled": ranges.RESCALED for network in ("trained", "untrained")},
        **{
            name: values
            for metric in METRICS
            for name, values in ranges.on_two_networks(metric, same_rows.MODES).items()
        },
    },
)
