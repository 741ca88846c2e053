"""Is the SAE about as stable as a transcoder trained on the same inputs?

This judges the recipe of the given SAEs, trained anew on the inputs of the MLP; their own weights are not measured.

On the MLP of the SAE's layer, transcoders (MLP input to MLP output) and SAEs (MLP input to itself) are trained with the
SAE's recipe and seeds. Their decoders live in different spaces, so each group is measured above its own nulls: Gaussian
dictionaries of its shape, and the same training on shuffled rows, where every dimension of inputs and targets is
permuted on its own. Their difference is taken over one null at a time, and the smallest counts. An SAE, its transcoder
and their controls share a seed, so differences are paired by seed.
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
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common import stress_panels, work
from husai_core.kinds.common.stress import SAES, Stress, StressSpec
from husai_core.kinds.kind import Facts, Kind, Port, Work
from husai_core.stability.result_tables import Matrix, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from husai_core.stability.halves import Doubled, Figure, Level, Measured
    from husai_core.stability.intervals import Statistic
    from husai_core.stability.seed_group import SeedGroup

INPUTS = {
    "saes": SAES,
    "transformer": Port("transformer", "the network that they read"),
}
PARTS = ("train", "validation", "test")


class Spec(StressSpec):
    """How the rows are split."""

    validation_fraction: float = Field(0.1, gt=0, lt=0.5, description="share of the rows for convergence")
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="share of the rows for all figures")
    seed: int = Field(0, ge=0, lt=2**53, description="seed of the split and of the shuffling")


class Compared(BaseResult):
    """One of both groups: its pairs and tables, and those of its shuffled control."""

    pairs: Matrix = Field(description="PWMCC of every pair of seeds")
    control_pairs: Matrix = Field(description="PWMCC of every pair of seeds of the shuffled control")
    members: list[Member]
    control_members: list[Member]


class Result(Evidence):
    """PWMCC of both groups, their nulls, excesses, and the difference of the excesses."""

    seeds: list[int]
    input_hook: str
    output_hook: str
    sae: Compared
    transcoder: Compared


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train four groups and compare."""
    stress = Stress(spec, inputs, job, trainings=4, seed=spec.seed)
    hooks, (source, target) = _rows(spec, inputs, stress.group, job.device)
    sae = _Arm("sae", stress, source, None, spec.seed)
    transcoder = _Arm("transcoder", stress, source, target, spec.seed)
    return Result(
        **stress.evidence(_measured(sae, transcoder)),
        seeds=stress.group.seeds,
        input_hook=hooks[0],
        output_hook=hooks[1],
        sae=sae.compared,
        transcoder=transcoder.compared,
    )


def _rows(spec: Spec, inputs: Inputs, group: SeedGroup, device: str) -> tuple[list[str], list[dict[str, Tensor]]]:
    """The hooks at input and output of the MLP of the SAE's layer, and their rows by split."""
    import re

    from husai_core.data import modular as data
    from husai_core.models import modular

    path = inputs.one("transformer").path
    cfg = modular.read_config(path)
    layer = re.match(r"blocks\.(\d+)\.", group.hook_name)
    if layer is None:
        raise UserError(f"the SAEs' hook {group.hook_name!r} lies in no block, so it has no MLP to compare with")
    inside = "hook_resid_mid" if cfg["normalization_type"] is None else "ln2.hook_normalized"
    hooks = [f"blocks.{layer.group(1)}.{name}" for name in (inside, "hook_mlp_out")]
    tokens = data.pairs(cfg["dataset"]["p"]).tokens
    activations = modular.activations(modular.load(path, device), tokens, [*hooks, group.hook_name], group.position)
    group.check_width(activations[group.hook_name].shape[1])
    split = data.split(len(tokens), spec.validation_fraction, spec.test_fraction, spec.seed)
    return hooks, [{name: activations[hook][split == i] for i, name in enumerate(PARTS)} for hook in hooks]


class _Arm:
    """SAEs, or with targets transcoders, and their shuffled control, trained and measured."""

    def __init__(
        self, name: str, stress: Stress, source: dict[str, Tensor], target: dict[str, Tensor] | None, seed: int
    ) -> None:
        from husai_core.stability import nulls
        from husai_core.stability.pairwise import DoubledOverlaps
        from husai_core.stability.retrain import halves, members

        noise = {split: nulls.shuffled(rows, seed, split) for split, rows in source.items()}
        noise_target = target and {
            split: nulls.shuffled(rows, seed, f"target {split}") for split, rows in target.items()
        }
        groups, tables = list[DoubledOverlaps](), list[list[Member]]()
        for label, x, y in ((name, source, target), (f"{name} shuffled", noise, noise_target)):
            rows, targets = [x[name] for name in PARTS], [y[name] if y else None for name in PARTS]
            trained = stress.train(label, rows[0], rows[1], targets[0], targets[1])
            groups.append(DoubledOverlaps.of(trained, halves(trained), rows[2]))
            tables.append(members(trained, rows[2], targets[2]))
        self.group, self.control = groups
        pairs, control_pairs = (group.whole.matrices["pwmcc"] for group in groups)
        self.compared = Compared(pairs=pairs, control_pairs=control_pairs, members=tables[0], control_members=tables[1])

    def compare(self, metric: str) -> tuple[Doubled[Statistic], Doubled[Level], dict[str, Doubled[Statistic]]]:
        """A metric, its Gaussian null and its controls."""
        return self.group.statistic(metric), self.group.gaussian(metric), {"shuffled": self.control.statistic(metric)}


def _measured(sae: _Arm, transcoder: _Arm) -> Measured:
    """Figures over all and over alive features; the difference is of excesses over the same null, the smallest."""
    from husai_core.stability.halves import Measured
    from husai_core.stability.pairwise import against_nulls, excesses

    measured = Measured()
    for suffix in ("", "_alive"):
        compared = {name: arm.compare(f"pwmcc{suffix}") for name, arm in (("sae", sae), ("transcoder", transcoder))}
        for name, terms in compared.items():
            measured.extend(against_nulls(f"pwmcc{suffix}", *terms), partial(_name, name, suffix))
        for rescaled in (False, True):
            above = {name: excesses(*terms, rescaled=rescaled) for name, terms in compared.items()}
            _differences_of(measured, above, "_rescaled" if rescaled else "", suffix)
    return measured


def _name(arm: str, suffix: str, name: str) -> str:
    """What a group's figure is called in the result."""
    over, excess, rest = name.partition("excess")
    return f"{arm}_{excess}{rest}{suffix}" if excess else f"{arm}_{over}"


def _differences_of(measured: Measured, above: Mapping[str, Mapping[str, Figure]], ending: str, suffix: str) -> None:
    """What is left of both groups above each null, and the differences."""
    differences = {null: figure.minus(above["transcoder"][null]) for null, figure in above["sae"].items()}
    measured.add_smallest(f"sae_minus_transcoder{ending}{suffix}", list(differences.values()))
    if suffix:
        return
    for null, difference in differences.items():
        measured.add(f"sae_minus_transcoder{ending}_{null}", difference)
        for name, figures in above.items():
            measured.add(f"{name}_{null}_excess{ending}", figures[null])


ARMS = {"sae": "SAE", "transcoder": "transcoder"}
CHANGES = ("sae_minus_transcoder", "sae_minus_transcoder_rescaled", "sae_excess", "transcoder_excess")
NULLS = {"gaussian": "Gaussian", "shuffled": "shuffled"}


def present(result: Result) -> list[panels.AnyPanel]:
    """Both groups above one and the same chance level, and the difference that release policies read."""
    smallest = result.statistics.get("sae_minus_transcoder")
    compared = {
        "above": "The SAE is more stable than a transcoder",
        "below": "A transcoder is more stable than the SAE",
    }
    said = compared.get(common.side(smallest), "Whether SAE or transcoder is more stable is undecided")
    text = (
        f"{said}: on the same "
        f"inputs, each above the same chance level, SAE minus transcoder is {common.interval(smallest)} in "
        f"{stress_panels.PWMCC}."
    )
    groups = {label: getattr(result, arm).members for arm, label in ARMS.items()}
    groups |= {f"{label}, shuffled": getattr(result, arm).control_members for arm, label in ARMS.items()}
    return [
        stress_panels.headline(result, text, [("SAE minus transcoder", "sae_minus_transcoder")]),
        _differences(result),
        _levels(result),
        *stress_panels.changes(result, CHANGES, _words),
        *common.members_table(groups, "Every SAE and transcoder"),
        stress_panels.statistics_table(result, _words),
        stress_panels.measures(),
    ]


def _above(result: Result, arm: str, null: str) -> Estimate | None:
    """What is left of a group's overlap above one of its chance levels; of earlier results without an interval."""
    known = result.statistics.get(f"{arm}_{null}_excess")
    observed, chance = (result.statistics.get(f"{arm}_pwmcc{end}") for end in ("", f"_{null}_null"))
    return known or common.difference(observed, chance)


def _differences(result: Result) -> panels.Intervals:
    """Per chance level, both groups above it and their difference; policies read the smallest."""
    rows = []
    for null, name in NULLS.items():
        arms = {arm: _above(result, arm, null) for arm in ARMS}
        for arm, label in ARMS.items():
            rows += common.interval_row(f"{label} above {name}", arms[arm])
        difference = result.statistics.get(f"sae_minus_transcoder_{null}")
        difference = difference or common.difference(arms["sae"], arms["transcoder"])
        rows += common.interval_row(f"difference above {name}", difference)
    rows += common.interval_row("smallest difference", result.statistics.get("sae_minus_transcoder"))
    note = (
        "Decoders of both groups live in different spaces, so each stands above a chance level of its own kind: "
        "Gaussian decoders of its shape, or the same training on shuffled rows. Differences are paired by seed. "
        f"The smallest of them is what release policies read. {stress_panels.POLICY}"
    )
    title = "Overlap above the same chance level"
    zero = [panels.Reference(label="chance, or no difference", value=0.0)]
    return panels.Intervals(title=title, note=note, rows=rows, references=zero, x_label="PWMCC above chance")


def _levels(result: Result) -> panels.Intervals:
    """The overlaps themselves, each beside its chance levels."""
    rows, statistics = [], result.statistics
    for arm, label in ARMS.items():
        compared = getattr(result, arm)
        for name, end, matrix in (
            (label, "", compared.pairs),
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
    """SAEs, transcoders and their shuffled controls on all pairs, and every overlap of the four groups."""
    siblings, pairs = work.Siblings.of(spec.recipe, facts), work.modular_pairs(facts)
    network = work.Network.of(work.first(facts, "transformer"))
    cost = siblings.training(4, spec.validation_fraction * pairs) + siblings.measured(4, spec.test_fraction * pairs)
    cost += siblings.comparison(4 * (1 + siblings.halves), spec.test_fraction * pairs)
    cost += work.Cost(network.forward(pairs * work.LENGTH), network.held(8192, 4))
    return cost.work(work.result_bytes(siblings.seeds, matrices=4), base=8 * siblings.rows_bytes(pairs))


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    statistics=ranges.of_two_groups(("sae", "transcoder"), ("gaussian", "shuffled")),
)
