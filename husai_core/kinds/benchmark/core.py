"""What does a network lose when the SAE stands in for its activations, and how well does the SAE reconstruct them?

On held-out sequences the rows at the hook are replaced by what the SAE makes of them; zeros and the mean of the rows
are put there for comparison. Loss recovered is the share of the rise in cross-entropy by ablation that the SAE avoids,
KL recovered the same of the divergence from the network's own predictions, as in SAEBench's core; the shares named
plainly are over zero ablation. Every figure stands beside that of random SAEs of the same shape and L0, because a
random SAE recovers much of the loss. A model whose loss ablation hardly raises gives no share.

Explained variance, normalised MSE and cosine similarity are the worse of the figure over all rows and that without
outliers, rows whose norm is beyond `outlier_norm` times the median: a few attention sinks can hold nearly all variance.
Sequences share no 13 consecutive tokens with rows that the SAEs were trained or selected on. Special tokens do not go
through the SAE unless asked.
"""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import panels
from husai_core.benchmarks.ranges import value_range
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import diagnosis, held_out, stress_panels
from husai_core.kinds.common import panels as common
from husai_core.kinds.common.held_out import HeldOutSpec
from husai_core.kinds.common.statistics import difference
from husai_core.kinds.kind import Facts, Kind, Work
from husai_core.stability import origins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from husai_core.saes.sae import SAE
    from husai_core.stability.intervals import Statistic
    from husai_core.stability.seed_group import SAEGroup

PRESETS = {
    "smoke": {"max_sequences": 48},
    "saebench": {"context": 128, "max_sequences": 3200},
}
"""`saebench` reads as many sequences as SAEBench's core does for the cross-entropy."""
ABLATED = 2
"""Ablations, which cost as much as an SAE."""


class Spec(HeldOutSpec):
    """What is measured beside what."""

    random_seeds: int = Field(3, ge=3, le=32, description="random SAEs of the same shape and L0")
    outlier_norm: float = Field(
        10.0, gt=1, description="rows of more than this multiple of the median norm are outliers"
    )
    dense_above: float = Field(
        0.1, gt=0, lt=1, description="latents that fire on more than this share of the rows are dense"
    )


class SAEFigures(BaseResult):
    """One SAE; intervals are over sequences."""

    seed: int
    figures: dict[str, Estimate]


class Result(Evidence):
    """Figures with those of random SAEs (`_random`) and the differences (`_minus_random`)."""

    seeds: list[int]
    hook_name: str
    sequences: int = Field(description="held-out sequences, or pairs of addition")
    rows: int = Field(description="activations that went through the SAE")
    predictions: int = Field(description="predictions that count for cross-entropy and divergence")
    outlier_norm: float = Field(description="rows of more than this multiple of the median norm are outliers")
    dense_above: float = Field(description="latents that fire on more than this share of the rows are dense")
    saes: list[SAEFigures]
    random: list[SAEFigures]
    claimed_recipe: dict[str, Any] | None = Field(
        None, description="how the files of imported SAEs say that all of them were trained, as a recipe of train.sae"
    )
    explained_by_layer: dict[str, float] = Field(
        {},
        description="explained variance of the first SAE on some rows of the same hook in every layer; absent from "
        "earlier results, and where the hook lies in no layer",
    )


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Read the rows, make the random SAEs, and put all of them in place of the activations."""
    from husai_core.benchmarks.against_random import against_random
    from husai_core.benchmarks.layers import explained_by_layer
    from husai_core.benchmarks.splice import measure, survey
    from husai_core.seeding import seed_everything
    from husai_core.stability import seed_group

    seed_everything(spec.seed)
    group = seed_group.siblings(inputs.many("saes"))
    reading = held_out.read(spec, inputs, group, job)
    sample, n_saes = reading.sample, len(group.saes)
    count = held_out.counter(job, len(sample) * (1 + ABLATED + n_saes + spec.random_seeds))
    rows = survey(reading, count)
    seeds = range(spec.seed, spec.seed + spec.random_seeds)
    saes = [*group.saes, *_random(group, rows.examples, seeds)]
    limit = spec.outlier_norm * float(rows.norms.median()) or inf
    measured = measure(reading, saes, rows.mean, limit, spec.dense_above, count)
    trained, random = measured.saes[:n_saes], measured.saes[n_saes:]
    return Result(
        **held_out.evidence(group, inputs),
        statistics=_estimates(measured.model) | against_random(trained, random),
        seeds=group.seeds,
        hook_name=reading.hook,
        sequences=len(sample),
        rows=int(sample.rows.sum()),
        predictions=int(sample.predicted.sum()),
        outlier_norm=spec.outlier_norm,
        dense_above=spec.dense_above,
        saes=[SAEFigures(seed=s, figures=_estimates(f)) for s, f in zip(group.seeds, trained, strict=True)],
        random=[SAEFigures(seed=s, figures=_estimates(f)) for s, f in zip(seeds, random, strict=True)],
        claimed_recipe=_claimed(
            [json.loads((artifact.path / "cfg.json").read_bytes()) for artifact in inputs.many("saes")]
        ),
        explained_by_layer=explained_by_layer(reading, group.saes[0]),
    )


def _claimed(saes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The recipe that the `cfg.json` of SAEs claim."""
    recipe = origins.known_claim(saes)
    return None if recipe is None else recipe.model_dump(mode="json")


def _random(group: SAEGroup, rows: Tensor, seeds: Sequence[int]) -> list[SAE]:
    """Random SAEs as sparse as the SAEs are on average on some rows [n, d]."""
    from husai_core.saes.evaluate import evaluate
    from husai_core.stability.nulls import random_sae_of_l0

    l0 = sum(evaluate(sae, rows).l0 for sae in group.saes) / len(group.saes)
    return [random_sae_of_l0(group.saes[0].d_sae, rows, seed, l0) for seed in seeds]


def _estimates(figures: Mapping[str, Statistic]) -> dict[str, Estimate]:
    """Figures with their intervals over sequences, cut to what they can be."""
    return {name: figure.estimate().within(*value_range(name)) for name, figure in figures.items()}


SHARES = {
    "loss_recovered": "loss recovered, zero ablation",
    "loss_recovered_mean_ablation": "loss recovered, mean ablation",
    "kl_recovered": "KL recovered, zero ablation",
    "kl_recovered_mean_ablation": "KL recovered, mean ablation",
}
NAMES = {
    **SHARES,
    "explained_variance": "explained variance",
    "normalised_mse": "normalised MSE",
    "cosine_similarity": "cosine similarity",
    "l0": "L0",
    "l0_per_dimension": "L0 per dimension of a row",
    "dead_fraction": "dead latents, share",
    "dense_fraction": "dense latents, share",
    "cross_entropy": "cross-entropy",
    "cross_entropy_increase": "rise of cross-entropy",
    "kl": "KL",
}
MODEL_FIGURES = (
    "cross_entropy_model",
    "cross_entropy_zero_ablation",
    "cross_entropy_mean_ablation",
    "kl_zero_ablation",
    "kl_mean_ablation",
    "outlier_fraction",
)
"""Statistics that no SAE has a share in."""
SUFFIXES = {"_all_rows": ", all rows", "_without_outliers": ", without outliers"}
ENDS = {"_minus_random": "SAE - random", "_random": "random SAE"}
LOSSES = {
    "cross_entropy_model": "nothing replaced",
    "cross_entropy": "SAE",
    "cross_entropy_random": "random SAE",
    "cross_entropy_mean_ablation": "mean of the rows",
    "cross_entropy_zero_ablation": "zeros",
}


def present(result: Result) -> list[panels.AnyPanel]:
    """What the SAE keeps of the network, each figure beside a random SAE's."""
    loss, kl, random = (
        result.statistics.get(name) for name in ("loss_recovered", "kl_recovered", "loss_recovered_random")
    )
    text = (
        f"With the SAE in place of {result.hook_name}, {common.interval(loss)} of the loss and "
        f"{common.interval(kl)} of the predictions (KL) are recovered; a random SAE of the same L0 recovers "
        f"{common.interval(random)} of the loss."
    )
    if loss is not None and loss.value is None:
        text = (
            f"Ablating {result.hook_name} hardly raises the cross-entropy, so there is no share of the loss to "
            f"recover; of the predictions (KL) {common.interval(kl)} are recovered."
        )
    figures = ("loss_recovered", "kl_recovered", "explained_variance", "l0", "dead_fraction")
    return [
        stress_panels.headline(result, text, [(NAMES[name].partition(",")[0], name) for name in figures]),
        *diagnosis.panel(diagnosis.diagnoses(result.statistics, result.hook_name, result.explained_by_layer)),
        _recovered(result),
        _table(result),
        _losses(result),
        _members(result),
        stress_panels.statistics_table(
            result, _words, note=f"With 95 % intervals. {_over(result)} n: number of units."
        ),
    ]


def _over(result: Result) -> str:
    """What intervals are over."""
    units = "seeds and sequences" if len(result.saes) > 1 else "sequences"
    return f"Intervals of the SAE are over {units}, of random SAEs over seeds and sequences."


def _recovered(result: Result) -> panels.Intervals:
    """The shares recovered, beside those of random SAEs."""
    rows = []
    for name, label in SHARES.items():
        for ending, members in (("", result.saes), ("_random", result.random)):
            points = [(f"seed {m.seed}", m.figures[name].value) for m in members if name in m.figures]
            known = [(seed, value) for seed, value in points if value is not None]
            said = f"{label}{', random SAE' if ending else ''}"
            rows += common.interval_row(said, result.statistics.get(name + ending), known)
    return panels.Intervals(
        title="Recovered of what ablation costs",
        note=f"1: nothing is lost; 0: as much as by ablation. A point is a seed. {_over(result)}",
        rows=rows,
        references=[panels.Reference(label="nothing lost", value=1.0)],
        x_label="share recovered",
    )


def _table(result: Result) -> panels.Table:
    """Every figure with that of random SAEs and the difference."""
    columns = [panels.Column(label="figure")]
    columns += [panels.Column(label=label, format="number") for label in ("SAE", *reversed(ENDS.values()))]
    rows: list[list[panels.Cell]] = [
        [label, *(result.statistics.get(name + ending) for ending in ("", *reversed(ENDS)))]
        for name, label in NAMES.items()
    ]
    share = result.statistics.get("outlier_fraction")
    note = (
        f"On {result.rows} rows of {result.sequences} held-out sequences; random SAEs have the same shape and L0. "
        f"Explained variance, MSE and cosine are the worse of all rows and without outliers, which are "
        f"{common.percent(share.value if share else None)} of the rows (norm beyond {result.outlier_norm:g} times the "
        f"median). Dense: fires on more than {common.percent(result.dense_above)} of the rows."
    )
    return panels.Table(title="SAE beside random SAE", note=note, columns=columns, rows=rows)


def _losses(result: Result) -> panels.Intervals:
    """Cross-entropy with everything that was put in place of the activations."""
    rows = [row for name, label in LOSSES.items() for row in common.interval_row(label, result.statistics.get(name))]
    note = f"By what stands in place of the activations; {result.predictions} predictions."
    return panels.Intervals(title="Cross-entropy", note=note, rows=rows, x_label="nats per prediction")


def _members(result: Result) -> panels.Table:
    """Every SAE, trained and random, folded."""
    shown = {"loss_recovered": "loss rec.", "kl_recovered": "KL rec.", "explained_variance": "EV", "l0": "L0"}
    columns = [panels.Column(label="SAE"), *(panels.Column(label=label, format="number") for label in shown.values())]
    groups = {"seed": result.saes, "random": result.random}
    rows: list[list[panels.Cell]] = [
        [f"{label} {member.seed}", *(member.figures.get(name) for name in shown)]
        for label, members in groups.items()
        for member in members
    ]
    note = "Intervals are over sequences."
    return panels.Table(title="Every SAE", note=note, folded=True, columns=columns, rows=rows)


def _words(name: str) -> tuple[str, str]:
    """A statistic's measure and figure in words."""
    if name in LOSSES:
        return "cross-entropy", LOSSES[name]
    ending = next((ending for ending in ENDS if name.endswith(ending)), "")
    figure = name.removesuffix(ending)
    suffix = next((suffix for suffix in SUFFIXES if figure.endswith(suffix)), "")
    label = NAMES.get(figure) or NAMES.get(figure.removesuffix(suffix), figure.replace("_", " ")) + SUFFIXES.get(
        suffix, ""
    )
    return label, ENDS.get(ending, "observed")


def estimate(spec: Spec, facts: Facts) -> Work:
    """One forward pass for the network, every ablation and every SAE, and what the SAEs compute."""
    work = held_out.estimate(spec, facts, passes=1 + ABLATED, random_saes=spec.random_seeds)
    saes = facts.get("saes", ())
    known = {"claimed_recipe": _claimed(saes)} if saes and all(saes) else {}
    return work.model_copy(update={"result": known})


def statistics() -> dict[str, tuple[float, float]]:
    """Every statistic with the values that it can take."""
    doubled = ("explained_variance", "normalised_mse", "cosine_similarity")
    figures = [*NAMES, *(figure + suffix for figure in doubled for suffix in SUFFIXES)]
    ranges = {name: value_range(name) for name in (*MODEL_FIGURES, *figures)}
    ranges |= {f"{name}_random": value_range(name) for name in figures}
    return ranges | {f"{name}_minus_random": difference(value_range(name)) for name in figures}


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=held_out.INPUTS,
    run=run,
    estimate=estimate,
    present=present,
    assets=held_out.needed_assets,
    presets=PRESETS,
    statistics=statistics(),
)
