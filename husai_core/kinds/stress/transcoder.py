"""Is the SAE about as stable as a transcoder trained on the same inputs?

This judges the recipe of the given SAEs, trained anew on the inputs of the MLP; their own weights are not measured.

On the MLP of the SAE's layer, transcoders (MLP input to MLP output) and SAEs (MLP input to itself) are trained with the
SAE's recipe and seeds. Of a network for addition (`transformer`) all pairs are read; of a language model the rows come
from train.activations (`mlp_input`, `mlp_output`). Decoders of both groups live in different spaces, so each group is
measured above its own nulls, both of which a transcoder can learn: Gaussian dictionaries of its shape, and the same
training on Gaussian rows with the joint covariance of inputs and targets. What is left is also given as a share of what
the null leaves. Their difference is taken over one null at a time, and the smallest counts. The same training on
shuffled rows, where every dimension of inputs and targets is permuted on its own, is reported beside: it takes from a
transcoder all that it could learn, but not from an SAE. An SAE, its transcoder and their controls share a seed, so
differences are paired by seed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.errors import UserError
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import mlp_rows, stress_panels, work
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common.stress import RETRAINED, SAES, Stress, StressSpec
from husai_core.kinds.kind import Facts, Kind, Port, Work
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from husai_core.kinds.common.mlp_rows import Rows
    from husai_core.stability.halves import Doubled, Figure, Level, Measured
    from husai_core.stability.intervals import Statistic

INPUTS = {
    "saes": SAES,
    "transformer": Port("transformer", "of a network for addition: the network that they read", required=False),
    "mlp_input": Port("activations", "of any model: the input of the MLP of their layer", required=False),
    "mlp_output": Port("activations", "of any model: the output of that MLP, of the same tokens", required=False),
    "retrained": RETRAINED,
    "activations": Port("activations", "with `retrained`: the rows that these were trained on", required=False),
}
JUDGED, REPORTED = ("gaussian", "covariance"), ("shuffled",)
"""Chance levels above which both groups are compared, and those that stand beside."""


class Spec(StressSpec):
    """How the rows are split."""

    validation_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of the rows for convergence; stored activations have their split"
    )
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of the rows for all figures, likewise")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of the split and of the controls")

    def check_ports(self, bound: Collection[str]) -> None:
        """Refuse anything but one source of the MLP's rows."""
        super().check_ports(bound)
        if {"transformer", *mlp_rows.PORTS} & {*bound} not in ({"transformer"}, {*mlp_rows.PORTS}):
            raise UserError(
                "bind either transformer (a network for addition), or mlp_input and mlp_output (activations of the MLP "
                "of the SAEs' layer)"
            )

    def check_facts(self, facts: Facts) -> None:
        """Refuse activations that are not of the MLP of the SAEs' layer."""
        super().check_facts(facts)
        sae = work.first(facts, "saes")
        bound = {port: work.first(facts, port) for port in mlp_rows.PORTS}
        if "husai" in sae and all("source" in cfg for cfg in bound.values()):
            mlp_rows.check(sae, bound)


class Compared(BaseResult):
    """One of both groups: its pairs and tables, and those of its controls."""

    pairs: Matrix = Field(description="PWMCC of every pair of seeds")
    control_pairs: Matrix = Field(description="PWMCC of every pair of seeds of the shuffled control")
    members: list[Member]
    control_members: list[Member] = Field(description="of the shuffled control")
    covariance_pairs: Matrix = Field(
        [], description="those of the joint covariance control; absent from earlier results"
    )
    covariance_members: list[Member] = Field([], description="those of the joint covariance control")


class Result(Evidence):
    """PWMCC of both groups, their nulls, excesses, and the difference of the excesses."""

    seeds: list[int]
    input_hook: str
    output_hook: str
    sae: Compared
    transcoder: Compared


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train six groups and compare."""
    spec.check_ports(inputs.bound)
    stress, fractions = (
        Stress(spec, inputs, job, trainings=6, seed=spec.seed),
        (spec.validation_fraction, spec.test_fraction),
    )
    if inputs.many("transformer"):
        hooks, rows = mlp_rows.of_network(inputs, stress.group, fractions, spec.seed, job.device)
    else:
        hooks, rows = mlp_rows.of_artifacts(inputs, stress.group)
    noise = mlp_rows.controls(rows, spec.seed)
    sae, transcoder = (_Arm(name, stress, rows, noise) for name in ARMS)
    return Result(
        **stress.evidence(_measured(sae, transcoder)),
        seeds=list(stress.trainings.seeds),
        input_hook=hooks[0],
        output_hook=hooks[1],
        sae=sae.compared,
        transcoder=transcoder.compared,
    )


class _Arm:
    """SAEs or transcoders and their controls, trained and measured."""

    def __init__(self, name: str, stress: Stress, rows: Rows, noise: Mapping[str, Rows]) -> None:
        from husai_core.stability.pairwise import DoubledOverlaps
        from husai_core.stability.retrain import halves, members

        groups, tables = dict[str, DoubledOverlaps](), dict[str, list[Member]]()
        for control, read in {"": rows, **noise}.items():
            train, validation, test = (read.source[split] for split in mlp_rows.PARTS)
            targets = [read.target[split] if name == "transcoder" else None for split in mlp_rows.PARTS]
            trained = stress.train(f"{name} {control}".strip(), train, validation, targets[0], targets[1])
            groups[control] = DoubledOverlaps.of(trained, halves(trained), test)
            tables[control] = members(trained, test, targets[2])
        pairs = {control: group.whole.matrices["pwmcc"] for control, group in groups.items()}
        self.group, self.controls = groups.pop(""), groups
        self.compared = Compared(
            pairs=pairs[""],
            control_pairs=pairs["shuffled"],
            covariance_pairs=pairs["covariance"],
            members=tables[""],
            control_members=tables["shuffled"],
            covariance_members=tables["covariance"],
        )

    def compare(
        self, metric: str, nulls: Sequence[str]
    ) -> tuple[Doubled[Statistic], Doubled[Level], dict[str, Doubled[Statistic]]]:
        """A metric, its Gaussian null, and those of its controls that are among some nulls."""
        controls = {name: control.statistic(metric) for name, control in self.controls.items() if name in nulls}
        return self.group.statistic(metric), self.group.gaussian(metric), controls


def _measured(sae: _Arm, transcoder: _Arm) -> Measured:
    """Figures over all and over alive features; the difference is of excesses over the same null, the smallest."""
    from husai_core.stability.halves import Measured, plain
    from husai_core.stability.pairwise import against_nulls, excesses, value_range

    measured, arms = Measured(), {"sae": sae, "transcoder": transcoder}
    for suffix in ("", "_alive"):
        metric = f"pwmcc{suffix}"
        for name, arm in arms.items():
            measured.extend(against_nulls(metric, *arm.compare(metric, JUDGED)), partial(_name, name, suffix))
            for null in REPORTED:
                control = plain(arm.controls[null].statistic(metric))
                measured.add(f"{name}_{metric}_{null}_null", control, value_range(metric))
        for rescaled in (False, True):
            above = {
                name: excesses(*arm.compare(metric, (*JUDGED, *REPORTED)), rescaled=rescaled)
                for name, arm in arms.items()
            }
            _differences_of(measured, above, "_rescaled" if rescaled else "", suffix)
    return measured


def _name(arm: str, suffix: str, name: str) -> str:
    """What a group's figure is called in the result."""
    over, excess, ending = name.partition("excess")
    return f"{arm}_{excess}{ending}{suffix}" if excess else f"{arm}_{over}"


def _differences_of(measured: Measured, above: Mapping[str, Mapping[str, Figure]], ending: str, suffix: str) -> None:
    """What is left of both groups above each null, and the differences."""
    differences = {null: figure.minus(above["transcoder"][null]) for null, figure in above["sae"].items()}
    judged = [difference for null, difference in differences.items() if null in JUDGED]
    measured.add_smallest(f"sae_minus_transcoder{ending}{suffix}", judged)
    if suffix:
        return
    for null, difference in differences.items():
        measured.add(f"sae_minus_transcoder{ending}_{null}", difference)
        for name, figures in above.items():
            measured.add(f"{name}_{null}_excess{ending}", figures[null])


ARMS = {"sae": "SAE", "transcoder": "transcoder"}
NOISE = "Gaussian rows with the joint covariance of inputs and targets"
CHANGES = ("sae_minus_transcoder_rescaled", "sae_minus_transcoder", "sae_excess", "transcoder_excess")
NULLS = {"gaussian": "Gaussian", "covariance": "covariance", "shuffled": "shuffled"}


def present(result: Result) -> list[panels.AnyPanel]:
    """Both groups above one and the same chance level, and the difference that release policies read."""
    rescaled = "sae_minus_transcoder_rescaled" in result.statistics
    name = "sae_minus_transcoder" + "_rescaled" * rescaled
    smallest = result.statistics.get(name)
    compared = {
        "above": "The SAE is more stable than a transcoder",
        "below": "A transcoder is more stable than the SAE",
    }
    said = compared.get(common.side(smallest), "Whether SAE or transcoder is more stable is undecided")
    text = (
        f"{said}: on the same "
        f"inputs, each above the same chance level{', as a share of what it leaves' * rescaled}, SAE minus transcoder "
        f"is {common.interval(smallest)} in {stress_panels.PWMCC}."
    )
    figures = [("SAE minus transcoder, rescaled" if rescaled else "SAE minus transcoder", name)]
    figures += [("... not rescaled", "sae_minus_transcoder")] * rescaled
    return [
        stress_panels.headline(result, text, figures),
        *([_differences(result, "_rescaled")] if rescaled else []),
        _differences(result),
        _levels(result),
        *stress_panels.changes(result, CHANGES, _words),
        *stress_panels.recipe_check(result.recipe_check),
        *common.members_table(_groups(result), "Every SAE and transcoder"),
        stress_panels.statistics_table(result, _words),
        stress_panels.measures(),
    ]


def _groups(result: Result) -> dict[str, list[Member]]:
    """The members of both groups and of their controls."""
    arms = {label: getattr(result, arm) for arm, label in ARMS.items()}
    groups = {label: compared.members for label, compared in arms.items()}
    groups |= {f"{label}, covariance": compared.covariance_members for label, compared in arms.items()}
    return groups | {f"{label}, shuffled": compared.control_members for label, compared in arms.items()}


def _above(result: Result, arm: str, null: str, ending: str) -> Estimate | None:
    """What is left of a group's overlap above one of its chance levels; of earlier results without an interval."""
    known = result.statistics.get(f"{arm}_{null}_excess{ending}")
    observed, chance = (result.statistics.get(f"{arm}_pwmcc{end}") for end in ("", f"_{null}_null"))
    return known or common.difference(observed, chance)


def _differences(result: Result, ending: str = "") -> panels.Intervals:
    """Per chance level, both groups above it and their difference; `ending` is `_rescaled` or nothing."""
    rows, earlier = [], "sae_minus_transcoder_rescaled" not in result.statistics
    for null in ("gaussian", "shuffled") if earlier else JUDGED:
        name, arms = NULLS[null], {arm: _above(result, arm, null, ending) for arm in ARMS}
        for arm, label in ARMS.items():
            rows += common.interval_row(f"{label} above {name}", arms[arm])
        difference = result.statistics.get(f"sae_minus_transcoder{ending}_{null}")
        difference = difference or common.difference(arms["sae"], arms["transcoder"])
        rows += common.interval_row(f"difference above {name}", difference)
    rows += common.interval_row("smallest difference", result.statistics.get(f"sae_minus_transcoder{ending}"))
    note = (
        "Decoders of both groups live in different spaces, so each stands above a chance level of its own kind: "
        f"Gaussian decoders of its shape, or the same training on {'shuffled rows' if earlier else NOISE}. Differences "
        f"are paired by seed. {stress_panels.POLICY}"
    )
    share = ", as a share of what it leaves" * bool(ending)
    zero = [panels.Reference(label="chance, or no difference", value=0.0)]
    return panels.Intervals(
        title=f"Overlap above the same chance level{share}",
        note=note,
        rows=rows,
        references=zero,
        x_label=f"PWMCC above chance{', rescaled' * bool(ending)}",
    )


def _levels(result: Result) -> panels.Intervals:
    """The overlaps themselves, each beside its chance levels."""
    rows, statistics = [], result.statistics
    for arm, label in ARMS.items():
        compared = getattr(result, arm)
        for name, end, matrix in (
            (label, "", compared.pairs),
            (f"{label}, covariance", "_covariance_null", compared.covariance_pairs),
            (f"{label}, shuffled", "_shuffled_null", compared.control_pairs),
            (f"{label}, Gaussian", "_gaussian_null", []),
        ):
            points = common.pair_points(matrix, result.seeds)
            rows += common.interval_row(name, statistics.get(f"{arm}_pwmcc{end}"), points)
    hooks = f"Transcoders map {result.input_hook} to {result.output_hook}; SAEs here reconstruct {result.input_hook}."
    return panels.Intervals(
        title="Overlap, each group beside its chance levels",
        note=f"{hooks} A point is a pair of seeds; intervals are over seeds.",
        rows=rows,
        x_label="PWMCC",
    )


def _words(name: str) -> tuple[str, str]:
    """A statistic's measure and figure in words."""
    alive = ", alive" if name.endswith("_alive") else ""
    if name.startswith("sae_minus_transcoder"):
        figure = name.removeprefix("sae_minus_transcoder").removesuffix("_alive")
        rescaled, null = ", rescaled" * ("_rescaled" in figure), NULLS.get(figure.rpartition("_")[2])
        return f"SAE - transcoder{alive}", (f"above {null}" if null else "smallest") + rescaled
    arm = name.partition("_")[0]
    figure = name.removeprefix(f"{arm}_")
    if "excess" in figure:
        figure = f"pwmcc{'_alive' if alive else ''}_{figure.removesuffix('_alive')}"
    measure, said = stress_panels.measure(figure)
    return f"{ARMS.get(arm, arm)}: {measure}", said


def estimate(spec: Spec, facts: Facts) -> Work:
    """SAEs, transcoders and two controls of each, and every overlap of the six groups."""
    siblings, stored = work.Siblings.of(spec.recipe, facts), work.first(facts, "mlp_input")
    pairs = work.modular_pairs(facts)
    splits = {"validation": spec.validation_fraction * pairs, "test": spec.test_fraction * pairs}
    if facts.get("mlp_input"):
        splits = {split: work.split_rows(stored, split) for split in work.SHARES}
        pairs = sum(splits.values())
    cost = siblings.training(6, splits["validation"]) + siblings.measured(6, splits["test"])
    cost += siblings.comparison(6 * (1 + siblings.halves), splits["test"])
    cost += siblings.recipe_check(work.split_rows(work.first(facts, "activations"), "test"))
    if facts.get("transformer"):
        network = work.Network.of(work.first(facts, "transformer"))
        cost += work.Cost(network.forward(pairs * work.LENGTH), network.held(8192, 4))
    return cost.work(work.result_bytes(siblings.seeds, matrices=6), base=10 * siblings.rows_bytes(pairs))


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    statistics=ranges.of_two_groups(tuple(ARMS), tuple(NULLS)),
)
