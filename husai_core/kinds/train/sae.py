"""Train sparse autoencoders on stored activations: several seeds, architectures and sparsity levels in one pass.

`recipe` is trained with every seed. With `variants`, lists of changes to it, every changed recipe is trained with every
seed instead: all of them read the same rows once, so a sweep costs little more than its matrix products. Checkpoints
come variant by variant, seed by seed. A variant takes from the recipe what its architecture reads; a field that it sets
itself must be read by it, and a field of the recipe by one of those that are trained.

Training sees the `train` rows only. Every figure is measured on the `test` rows, also of the copy of each SAE that came
to rest at half the tokens: a variant has settled where the last doubling of the tokens changed it by less than a
margin. `converged`, by which earlier versions judged, is measured on the `validation` rows: the error there changed by
less than 1 % over the last 10 % of the tokens and ended at least 1 % below the first point of its curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from husai_core import panels
from husai_core.errors import UserError
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, KeyFigures
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import variants, work
from husai_core.kinds.common.doubling import Doubling, HalfFigures, change_panels, doublings, half_figures, sentence
from husai_core.kinds.common.training import IN_MEMORY, Reporter, StateKeeper, near
from husai_core.kinds.common.variants import Variant
from husai_core.kinds.kind import BaseSpec, Facts, Kind, Port, Work
from husai_core.saes.recipe import SPARSITY, SAERecipe, together
from husai_core.stability.result_tables import RANGES
from husai_core.stability.result_tables import Member as SAEFigures
from husai_core.stability.settled import Settled, all_settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from husai_core.activations.store import Activations
    from husai_core.saes.trainer import TrainedSAE

INPUTS = {"activations": Port("activations", "rows to train on, with their split")}
OUTPUTS = {"saes": Port("sae", "one checkpoint per variant and seed, in their order", many=True)}
Seed = Annotated[int, Field(ge=0, lt=2**53)]
DEFAULT = SAERecipe(d_sae=128, k=8, k_aux=32)

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "smoke": {"recipe": {"d_sae": 128, "k": 8, "tokens": 200_000}, "seeds": [0, 1]},
    "examples/topk_16x": {"recipe": {"d_sae": 2048, "k": 64}},
    "sae/topk_8x_k32": {"recipe": {"d_sae": 1024, "k": 32}},
    "rising": {
        "recipe": {"d_sae": 256, "k": 8, "k_start": 2, "resample_tokens": 40_000, "lr": 1e-2, "tokens": 2_000_000}
    },
    "architectures": {
        "recipe": {"d_sae": 512, "k": 16, "order_seed": 0},
        "variants": [
            {},
            {"architecture": "batchtopk"},
            {"architecture": "matryoshka"},
            {"architecture": "switch"},
            {"architecture": "jumprelu", "target_l0": 16},
            {"architecture": "relu", "l1": 2.0},
            {"architecture": "gated", "l1": 1.0},
        ],
        "seeds": [0, 1, 2],
    },
}
"""Named specs. Those with a path keep the width and sparsity of the published configuration of that name for 128
dimensions; its budget of 140 steps did not converge, so budget and optimiser are this module's.

`rising` was chosen among seven recipes on three seeds and confirmed on five others, on residual rows (blocks.1) of the
built-in language model: one-to-one overlap of seeds 0.741 [0.723, 0.760] where the usual recipe has 0.658
[0.636, 0.680] at equal tokens, explained variance 0.905 and 0.900, on rows of the same covariance 0.469 and 0.476."""


def _fits(change: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if "recipe" in info.data:
        info.data["recipe"].changed(change)
    return change


class Spec(BaseSpec):
    """What to train."""

    recipe: SAERecipe = Field(DEFAULT, description="architecture, budget and optimiser")
    variants: list[Annotated[dict[str, Any], AfterValidator(_fits)]] = Field(
        [],
        max_length=64,
        description="changes to the recipe, each trained with every seed: other k, other architecture",
    )
    seeds: list[Seed] = Field([0, 1, 2, 3, 4], min_length=1, max_length=64, description="one SAE per seed")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds

    @model_validator(mode="after")
    def _one_bank(self) -> Self:
        together(self.recipes)
        trained = {recipe.architecture: None for recipe in self.recipes}
        if self.recipe != DEFAULT:
            self.recipe.check_read(trained)
        return self

    @property
    def recipes(self) -> list[SAERecipe]:
        """What is trained with every seed."""
        return [self.recipe.changed(change) for change in self.variants] or [self.recipe]


class Member(SAEFigures):
    """One SAE on the test rows."""

    variant: int = Field(description="place in `variants`, counted from 0")
    architecture: str
    k: int | None = Field(description="as in the recipe, like l1 and target_l0")
    l1: float | None
    target_l0: float | None
    drift_from_init: float = Field(description="mean |cosine| between final and initial decoder rows; 1 is no change")
    converged: bool
    half: HalfFigures | None = Field(None, description="its copy at half the tokens; None where there is none")


class Point(BaseResult):
    """Validation errors at one moment of training."""

    tokens: int = Field(description="rows seen by each member")
    normalised_mse: list[float] = Field(description="per member, sum of squared errors / sum of squares")


class Means(BaseResult):
    """Means over the seeds of one variant."""

    explained_variance: Estimate
    normalised_mse: Estimate
    l0: Estimate
    dead_fraction: Estimate
    drift_from_init: Estimate


class Result(BaseResult):
    """Figures of all members."""

    members: list[Member] = Field(description="variant by variant, seed by seed")
    means: list[Means] = Field([], description="variant by variant, with intervals over seeds")
    doublings: list[Doubling] = Field(
        [], description="variant by variant, what the last doubling of the tokens changed; absent from earlier results"
    )
    curves: list[Point]
    converged: bool = Field(description="every member converged")

    @property
    def settled(self) -> Settled:
        """Whether every variant had settled."""
        return all_settled(doubling.settled for doubling in self.doublings)

    @property
    def key_figures(self) -> KeyFigures:
        """Means over all members, and the worst explained variance."""
        names = ("explained_variance", "l0", "dead_fraction", "drift_from_init")
        figures = {name: sum(getattr(m, name) for m in self.members) / len(self.members) for name in names}
        lowest = min(member.explained_variance for member in self.members)
        return {
            "seeds": len(self.members),
            **figures,
            "lowest_explained_variance": lowest,
            "converged": self.converged,
            "settled": self.settled,
        }


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Train, measure and save one SAE per variant and seed."""
    from husai_core.activations.store import load
    from husai_core.saes.trainer import train
    from husai_core.seeding import seed_everything

    seed_everything(spec.seeds[0])
    source = inputs.one("activations")
    activations = load(source.path)
    _check(activations)
    saes = train(
        spec.recipes,
        near(activations.part("train")),
        spec.seeds,
        validation=near(activations.part("validation")),
        device=job.device,
        on_step=Reporter(job).step,
        on_state=StateKeeper(job).offer,
        state=job.resume,
    )
    members = _finish(saes, len(spec.seeds), activations, source.digest, job)
    curves = [
        Point(tokens=points[0][0], normalised_mse=[error for _, error in points])
        for points in zip(*(sae.curve for sae in saes), strict=True)
    ]
    return Result(
        members=members,
        means=[_means(group) for group in _variants(members)],
        doublings=doublings(saes, _variants(members), job),
        curves=curves,
        converged=all(member.converged for member in members),
    )


def _variants(members: Sequence[Member]) -> list[list[Member]]:
    """The members of each variant."""
    groups: dict[int, list[Member]] = {}
    for member in members:
        groups.setdefault(member.variant, []).append(member)
    return list(groups.values())


def _means(members: Sequence[Member]) -> Means:
    from husai_core.stability.intervals import seed_mean

    figures = {name: seed_mean([getattr(member, name) for member in members]) for name in Means.model_fields}
    return Means(**{name: mean.estimate().within(*RANGES[name]) for name, mean in figures.items()})


def _check(activations: Activations) -> None:
    for split in ("train", "validation", "test"):
        rows = activations.part(split)
        varies = any(bool((block != rows[:1]).any()) for block in rows.blocks())
        if not varies or not all(block.isfinite().all() for block in rows.blocks()):
            raise UserError(f"the {split} rows must be at least two, finite and not all equal")


def _finish(saes: list[TrainedSAE], n_seeds: int, activations: Activations, digest: str, job: Job) -> list[Member]:
    """Save every SAE and measure it and its half on the test rows; they come variant by variant, seed by seed."""
    from dataclasses import asdict

    from husai_core.saes.evaluate import evaluate_all

    seeds = [sae.seed for sae in saes[:n_seeds]]
    for sae in saes:
        _save(sae, activations, digest, seeds, job)
    halves = [sae.half for sae in saes if sae.half]
    figures = evaluate_all(
        [*saes, *halves],
        activations.part("test"),
        device=job.device,
        on_block=lambda done, total: job.progress(done, total, "test rows"),
    )
    of_halves = iter(figures[len(saes) :])
    return [
        Member(
            variant=place // n_seeds,
            **sae.recipe.model_dump(include={"architecture", *SPARSITY.values()}),
            seed=sae.seed,
            drift_from_init=sae.drift_from_init,
            converged=sae.converged,
            half=half_figures(next(of_halves)) if sae.half else None,
            **asdict(measured),
        )
        for place, (sae, measured) in enumerate(zip(saes, figures, strict=False))
    ]


def _save(sae: TrainedSAE, activations: Activations, digest: str, seeds: list[int], job: Job) -> None:
    from husai_core.saes import checkpoint

    try:
        checkpoint.check(sae)
    except UserError as error:
        raise UserError(f"training with seed {sae.seed} diverged ({error}); lower the learning rate") from error
    names = ("hook_name", "position", "source", "model_digest", "leaks_label")
    origin = {name: getattr(activations, name) for name in names} | {"activations_digest": digest, "bank_seeds": seeds}
    sae.hook_name = activations.hook_name
    if sae.half is not None:
        sae.half.hook_name, sae.half.provenance = activations.hook_name, sae.half.provenance | origin
    checkpoint.save(sae, job.output("saes", "sae"), sae.describe() | origin, sae.half)


def present(result: Result) -> list[panels.AnyPanel]:
    """Means of the variants, what they trade for what, and what the last doubling changed; members folded."""
    described = _described(result)
    several, resting = len(described) > 1, sum(variant.converged for variant in described)
    earlier = f"{resting} of {len(result.members)} trainings had converged." if resting < len(result.members) else ""
    shown: list[panels.AnyPanel] = [variants.headline(described, sentence(result.doublings) or earlier)]
    shown += [variants.table(described), *variants.frontier(described)] if several else []
    shown += [variants.explained_variance(described)]
    shown += change_panels([variant.name for variant in described], result.doublings) if result.doublings else []
    return [*shown, *_curves(result, described), _members(described)]


def _described(result: Result) -> list[Variant]:
    """The variants as they are shown: under a short name, with a number where that is ambiguous."""
    groups = _variants(result.members)
    means = result.means or [_plain_means(group) for group in groups]
    names = [_name(group[0]) for group in groups]
    unique = [name if names.count(name) == 1 else f"{place}: {name}" for place, name in enumerate(names)]
    ends: list[Settled | None] = [doubling.settled for doubling in result.doublings]
    return [
        Variant(name=name, architecture=group[0].architecture, members=group, means=dict(mean), settled=end)
        for name, group, mean, end in zip(unique, groups, means, ends or [None] * len(groups), strict=True)
    ]


def _plain_means(members: Sequence[Member]) -> Means:
    """Means without intervals, of a result that has none."""
    return Means(**{name: common.mean(getattr(m, name) for m in members) for name in Means.model_fields})


def _name(member: Member) -> str:
    field = SPARSITY.get(member.architecture, "k")
    return f"{member.architecture} {field.replace('target_l0', 'L0')} {common.number(getattr(member, field, None))}"


def _curves(result: Result, described: Sequence[Variant]) -> list[panels.AnyPanel]:
    """One line per SAE; those of one variant share their colour."""
    labels = [variant.name for variant in described for _ in variant.members]
    if len(described) == 1:
        labels = [f"seed {member.seed}" for member in result.members]
    series = []
    for place, label in enumerate(labels):
        errors = ((float(point.tokens), point.normalised_mse[place]) for point in result.curves)
        points = [(tokens, error) for tokens, error in errors if (common.finite(error) or 0) > 0]
        series += [panels.Series(label=label, points=points)] if points else []
    curves = panels.Lines(
        title="Held-out error during training",
        note="Normalised mean squared error on validation rows; one line per SAE.",
        series=series,
        x_label="tokens",
        y_label="normalised MSE",
        log_y=True,
    )
    return [curves] if series else []


def _members(described: Sequence[Variant]) -> panels.Table:
    """Every SAE, folded, under the place by which `saes:PLACE` names its checkpoint."""
    members = [(variant.name, member) for variant in described for member in variant.members]
    rows: list[list[panels.Cell]] = [
        [place, name, *common.member_cells(member)] for place, (name, member) in enumerate(members)
    ]
    columns = [panels.Column(label="#", format="integer"), panels.Column(label="variant"), *common.MEMBER_COLUMNS]
    note = f"{common.MEMBERS_NOTE} #: place among the output `saes`."
    return panels.Table(title="Every SAE", note=note, folded=True, columns=columns, rows=rows)


def estimate(spec: Spec, facts: Facts) -> Work:
    """Training of all members in one pass, their curves, and figures of halves and wholes on the test rows."""
    rows = work.first(facts, "activations")
    d_in, seeds = int(rows.get("d_model") or work.UNKNOWN_WIDTH), len(spec.seeds)
    cost = work.bank(spec.recipes, seeds, d_in, validation=work.split_rows(rows, "validation"))
    halved = [recipe for recipe in spec.recipes if recipe.why_no_half is None]
    cost += work.evaluation([*spec.recipes, *halved], seeds, d_in, work.split_rows(rows, "test"))
    cost += work.best_matches(2 * len(halved), seeds, spec.recipe.d_sae, d_in)
    held = min(2 * IN_MEMORY, 2 * work.FLOAT * d_in * sum(work.split_rows(rows, split) for split in work.SHARES))
    recipe, count = spec.recipes[0], len(spec.recipes) * seeds
    described = {
        "d_in": d_in,
        "d_sae": recipe.d_sae,
        "k": recipe.k,
        "husai": {"recipe": recipe.model_dump(mode="json")},
    }
    written = (count + seeds * len(halved)) * work.checkpoint_bytes(recipe.d_sae, d_in) + work.result_bytes(
        count, work.CURVE_POINTS
    )
    return cost.work(written, {"saes": {"count": count, **described}}, base=held)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=INPUTS,
    outputs=OUTPUTS,
    run=run,
    estimate=estimate,
    present=present,
    presets=PRESETS,
)
