"""Do other seeds find the same features, beyond chance?

Every overlap of every pair of sibling SAEs, over all features and over those that fire on the test rows, beside its
nulls: Gaussian dictionaries of the same shape (for activation-matched overlaps: untrained SAEs on the same rows), and
the same recipe and seeds trained on two controls: shuffled activations, where every dimension is permuted on its own,
and Gaussian rows with the covariance of the activations. The excess is over the largest null; rescaled, it is a
share of what that null leaves, (x - null) / (1 - null). MMCS is given signed; averaged over both directions, absolute
MMCS is PWMCC. Explained variance is that of the given SAEs on the test rows: the lower of that over all rows and that
without outliers, as a few rows of huge norm can hold nearly all variance.

SAEs and controls are measured at half their tokens, too, and the result says how the last doubling changed each figure.
Where imported SAEs bring no halves, `retrained` SAEs, trained here by the recipe that is claimed of them, say so; these
share their seeds with the controls. One or two imported SAEs are measured together with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.common import stress_panels, work
from husai_core.kinds.common.stress import RETRAINED, SAES, Stress, StressSpec
from husai_core.kinds.kind import Facts, Kind, Port, Work
from husai_core.stability.result_tables import RANGES, Matrix, Member

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from husai_core.activations.store import Activations
    from husai_core.saes.sae import SAE
    from husai_core.stability.halves import Measured
    from husai_core.stability.pairwise import DoubledOverlaps, PairwiseOverlaps

INPUTS = {
    "saes": SAES,
    "activations": Port("activations", "the rows that they were trained on"),
    "retrained": RETRAINED,
}
CONTROLS = ("shuffled", "covariance")
MEANS = {
    "explained_variance": "lower_explained_variance",
    "explained_variance_all_rows": "explained_variance",
    "explained_variance_without_outliers": "explained_variance_without_outliers",
}
"""Statistics, and the figures of single SAEs whose means they are."""


class Spec(StressSpec):
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
    from husai_core.stability import nulls
    from husai_core.stability.pairwise import DoubledOverlaps, PairwiseOverlaps
    from husai_core.stability.retrain import halves, members

    stress = Stress(spec, inputs, job, trainings=len(CONTROLS), seed=spec.control_seed)
    group = stress.group
    rows = load(inputs.one("activations").path)
    test = rows.part("test")[:]
    noise = {name: _noise(name, rows, spec.control_seed) for name in CONTROLS}
    saes = {name: stress.train(name, parts["train"], parts["validation"]) for name, parts in noise.items()}

    controls = {name: DoubledOverlaps.of(saes[name], halves(saes[name]), noise[name]["test"]) for name in CONTROLS}
    random = PairwiseOverlaps(nulls.random_saes(group.recipe, rows.part("train")[:], stress.trainings.seeds), test)
    trained = [DoubledOverlaps.of(members_of.saes, members_of.halves, test) for members_of, _ in stress.groups]
    return Result(
        **stress.evidence(_measured(stress, trained, random, controls, test)),
        seeds=group.seeds,
        pairs=trained[0].whole.matrices["pwmcc"],
        matrices=trained[0].whole.matrices,
        members=stress.members(test),
        controls={
            name: Control(matrices=overlaps.whole.matrices, members=members(saes[name], noise[name]["test"]))
            for name, overlaps in controls.items()
        },
    )


def _measured(
    stress: Stress,
    trained: Sequence[DoubledOverlaps],
    random: PairwiseOverlaps,
    controls: Mapping[str, DoubledOverlaps],
    test: Tensor,
) -> Measured:
    """All figures, from the overlaps of each of the stress's groups."""
    from husai_core.stability.halves import Measured

    figures = [Measured() for _ in trained]
    for measured, (group, paired), overlaps in zip(figures, stress.groups, trained, strict=True):
        _means(measured, stress.members(test, group), group.halves, test)
        _overlaps(measured, overlaps, random, controls, paired)
    return stress.measured(figures)


def _means(measured: Measured, members: Sequence[Member], halves: Sequence[SAE], test: Tensor) -> None:
    """Means over the SAEs, and the share of the test rows that are outliers."""
    from husai_core.saes.evaluate import evaluate_all
    from husai_core.stability.halves import Doubled, plain
    from husai_core.stability.intervals import seed_mean

    at_half = evaluate_all(halves, test) if halves else []
    for name, figure in MEANS.items():
        whole = seed_mean([getattr(member, figure) for member in members])
        half = seed_mean([getattr(figures, figure) for figures in at_half]) if at_half else None
        measured.add(name, plain(Doubled(whole, half)), RANGES[name])
    drifts = [member.drift_from_init for member in members if member.drift_from_init is not None]
    if len(drifts) == len(members):
        measured.add("drift_from_init", plain(Doubled(seed_mean(drifts))), RANGES["drift_from_init"])
    outlying = Estimate(value=members[0].outlier_fraction, n=len(test), unit="row", method="share of the test rows")
    measured.statistics["outlier_fraction"] = outlying


def _overlaps(
    measured: Measured,
    trained: DoubledOverlaps,
    random: PairwiseOverlaps,
    controls: Mapping[str, DoubledOverlaps],
    paired: bool,
) -> None:
    """Every overlap with its nulls and its excess."""
    from husai_core.stability.halves import Doubled, Level
    from husai_core.stability.pairwise import ACTIVATION, DECODER, SUFFIXES, against_nulls

    for metric in (name + suffix for name in (*DECODER, *ACTIVATION) for suffix in SUFFIXES):
        untrained = random.statistic(metric)
        chance: Doubled[Level] = Doubled(untrained, untrained)
        if not metric.startswith(ACTIVATION):
            chance = trained.gaussian(metric)
        compared = {name: overlaps.statistic(metric) for name, overlaps in controls.items()}
        measured.extend(against_nulls(metric, trained.statistic(metric), chance, compared, paired))


def _noise(name: str, rows: Activations, seed: int) -> dict[str, Tensor]:
    """A control's rows by split."""
    from husai_core.stability import nulls

    splits = {split: rows.part(split)[:] for split in ("train", "validation", "test")}
    if name == "shuffled":
        return {split: nulls.shuffled(values, seed, split) for split, values in splits.items()}
    return {split: nulls.covariance_matched(values, splits["train"], seed, split) for split, values in splits.items()}


def present(result: Result) -> list[panels.AnyPanel]:
    """Whether seeds agree beyond chance, against each chance level, and every pair of seeds."""
    excess = result.statistics.get("pwmcc_excess")
    agree = {
        "above": "Other seeds find the same features, beyond chance",
        "below": "Other seeds agree less than chance",
    }
    text = (
        f"{agree.get(common.side(excess), 'Whether other seeds agree beyond chance is undecided')}: "
        f"{stress_panels.PWMCC} is {common.interval(result.statistics.get('pwmcc'))}; its excess "
        f"over the largest chance level is {common.interval(excess)}."
    )
    figures = [
        ("PWMCC above largest chance level", "pwmcc_excess"),
        ("... as a share of what it leaves", "pwmcc_excess_rescaled"),
        ("PWMCC", "pwmcc"),
        ("explained variance", "explained_variance"),
        ("drift", "drift_from_init"),
    ]
    groups = stress_panels.given_and_retrained(result, result.members)
    groups |= {f"{name} control": group.members for name, group in result.controls.items()}
    gaussian = result.statistics.get("pwmcc_gaussian_null")
    title, note = "PWMCC of every pair of seeds", "Shaded from chance level to 1."
    return [
        stress_panels.headline(result, text, figures),
        _levels(result),
        _excess(result),
        common.pair_map(result.pairs, result.seeds, title, gaussian, note),
        *stress_panels.changes(result, ("explained_variance", "pwmcc_excess", "pwmcc_excess_rescaled", "pwmcc")),
        *stress_panels.recipe_check(result.recipe_check),
        *_drift(result),
        *common.members_table(groups, "Every SAE, and every control"),
        stress_panels.statistics_table(result),
        stress_panels.measures(),
    ]


def _levels(result: Result) -> panels.Intervals:
    """The overlap beside its chance levels."""
    statistics = result.statistics
    rows = common.interval_row("SAEs", statistics.get("pwmcc"), common.pair_points(result.pairs, result.seeds))
    for name, group in result.controls.items():
        points = common.pair_points(group.matrices.get("pwmcc", []), [member.seed for member in group.members])
        rows += common.interval_row(f"{name} control", statistics.get(f"pwmcc_{name}_null"), points)
    rows += common.interval_row("Gaussian decoders", statistics.get("pwmcc_gaussian_null"))
    note = (
        "Shuffled: the same training on rows whose dimensions are permuted one by one; covariance: on Gaussian rows "
        "with the covariance of the activations. A point is a pair of seeds; intervals are over seeds."
    )
    return panels.Intervals(title="Overlap beside its chance levels", note=note, rows=rows, x_label="PWMCC")


def _excess(result: Result) -> panels.Intervals:
    """What is left above the largest chance level, over all and over alive features."""
    rows = []
    for label, name in (("all features", "pwmcc"), ("alive features", "pwmcc_alive")):
        rows += common.interval_row(label, result.statistics.get(f"{name}_excess"))
        rows += common.interval_row(f"{label}, rescaled", result.statistics.get(f"{name}_excess_rescaled"))
    note = (
        "Above 0: seeds agree more than chance explains. Rescaled: as a share of what the chance level leaves up to 1. "
        f"{stress_panels.POLICY}"
    )
    zero = [panels.Reference(label="chance", value=0.0)]
    return panels.Intervals(
        title="Above the largest chance level", note=note, rows=rows, references=zero, x_label="PWMCC above chance"
    )


def _drift(result: Result) -> list[panels.AnyPanel]:
    """How far training moved the decoders; nothing where that is unknown."""
    known = [(member.seed, member.drift_from_init) for member in result.members]
    bars = [panels.Bar(label=f"seed {seed}", value=drift) for seed, drift in known if drift is not None]
    note = "Mean |cosine| of final with initial decoder rows; 1 means that training moved nothing."
    return [panels.Bars(title="Drift from initialisation", note=note, bars=bars, x_label="cosine")] if bars else []


def estimate(spec: Spec, facts: Facts) -> Work:
    """Both controls, and every overlap of four groups with its chance level."""
    siblings, rows = work.Siblings.of(spec.recipe, facts), work.first(facts, "activations")
    splits = {split: work.split_rows(rows, split) for split in work.SHARES}
    groups = 1 + siblings.retrained
    cost = siblings.training(2, splits["validation"]) + siblings.measured(2 + groups + siblings.halves, splits["test"])
    cost += siblings.comparison(3 + groups + 3 * siblings.halves, splits["test"])
    cost += siblings.recipe_check(splits["test"])
    held = 4 * siblings.rows_bytes(sum(splits.values()))
    return cost.work(work.result_bytes(siblings.seeds, matrices=40) + 15_000, base=held)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    statistics=ranges.above_nulls(["gaussian", "shuffled", "covariance"])
    | dict.fromkeys(MEANS, ranges.EXPLAINED_VARIANCE)
    | {"drift_from_init": ranges.SHARE, "outlier_fraction": ranges.SHARE},
)
