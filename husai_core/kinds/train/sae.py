"""Train sparse autoencoders on stored activations: several seeds, architectures and sparsity levels in one pass.

`recipe` is trained with every seed. With `variants`, lists of changes to it, every changed recipe is trained with every
seed instead: all of them read the same rows once, so a sweep costs little more than its matrix products. Checkpoints
come variant by variant, seed by seed. A variant takes from the recipe what its architecture reads; a field that it sets
itself must be read by it, and a field of the recipe by one of those that are trained.

Training sees the `train` rows only. Convergence is judged on the `validation` rows: a member has converged when its
error there changed by less than 1 % over the last 10 % of its tokens and ended at least 1 % below the first point of
its curve. Every other figure is measured on the `test` rows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from husai_core.errors import UserError
from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.kind import BaseSpec, Kind, Port
from husai_core.saes.recipe import SPARSITY, SAERecipe, together

if TYPE_CHECKING:
    from husai_core.activations.rows import Rows as StoredRows
    from husai_core.activations.store import Activations
    from husai_core.saes.bank import Rows
    from husai_core.saes.trainer import Save, TrainedSAE

INPUTS = {"activations": Port("activations", "rows to train on, with their split")}
OUTPUTS = {"saes": Port("sae", "one checkpoint per variant and seed, in their order", many=True)}
Seed = Annotated[int, Field(ge=0, lt=2**53)]
CHECKPOINT_SECONDS = 60.0
IN_MEMORY = 2 * 2**30
PROGRESS_SECONDS = 0.5
DEFAULT = SAERecipe(d_sae=128, k=8, k_aux=32)

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {},
    "smoke": {"recipe": {"d_sae": 128, "k": 8, "tokens": 200_000}, "seeds": [0, 1]},
    "examples/topk_16x": {"recipe": {"d_sae": 2048, "k": 64}},
    "sae/topk_8x_k32": {"recipe": {"d_sae": 1024, "k": 32}},
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
dimensions; its budget of 140 steps did not converge, so budget and optimiser are this module's."""


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


class Member(BaseResult):
    """One SAE on the test rows."""

    variant: int = Field(description="place in `variants`, counted from 0")
    architecture: str
    k: int | None = Field(description="as in the recipe, like l1 and target_l0")
    l1: float | None
    target_l0: float | None
    seed: int
    explained_variance: float
    normalised_mse: float = Field(description="sum of squared errors / sum of squares")
    l0: float = Field(description="non-zero latents per row")
    dead_fraction: float = Field(description="share of latents that are zero on all test rows")
    drift_from_init: float = Field(description="mean |cosine| between final and initial decoder rows; 1 is no change")
    converged: bool


class Point(BaseResult):
    """Validation errors at one moment of training."""

    tokens: int = Field(description="rows seen by each member")
    normalised_mse: list[float] = Field(description="per member, sum of squared errors / sum of squares")


class Result(BaseResult):
    """Figures of all members."""

    members: list[Member] = Field(description="variant by variant, seed by seed")
    curves: list[Point]
    converged: bool = Field(description="every member converged")


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
        _near(activations.part("train")),
        spec.seeds,
        validation=_near(activations.part("validation")),
        device=job.device,
        on_step=_Reporter(job).step,
        on_state=_Keeper(job).offer,
        state=job.resume,
    )
    members = _finish(saes, len(spec.seeds), activations, source.digest, job)
    curves = [
        Point(tokens=points[0][0], normalised_mse=[error for _, error in points])
        for points in zip(*(sae.curve for sae in saes), strict=True)
    ]
    return Result(members=members, curves=curves, converged=all(member.converged for member in members))


def _near(rows: StoredRows) -> Rows:
    """The rows in memory if that is cheap; else they are read batch by batch."""
    n, d = rows.shape
    return rows[:] if 4 * n * d <= IN_MEMORY else rows


def _check(activations: Activations) -> None:
    for part in ("train", "validation", "test"):
        rows = activations.part(part)
        varies = any(bool((block != rows[:1]).any()) for block in rows.blocks())
        if not varies or not all(block.isfinite().all() for block in rows.blocks()):
            raise UserError(f"the {part} rows must be at least two, finite and not all equal")


def _finish(saes: list[TrainedSAE], n_seeds: int, activations: Activations, digest: str, job: Job) -> list[Member]:
    """Save every SAE and measure it on the test rows; they come variant by variant, each with `n_seeds` seeds."""
    from dataclasses import asdict

    from husai_core.saes.evaluate import evaluate_all

    for sae in saes:
        _save(sae, activations, digest, job)
    figures = evaluate_all(
        saes,
        activations.part("test"),
        device=job.device,
        on_block=lambda done, total: job.progress(done, total, "test rows"),
    )
    return [
        Member(
            variant=place // n_seeds,
            **sae.recipe.model_dump(include={"architecture", *SPARSITY.values()}),
            seed=sae.seed,
            drift_from_init=sae.drift_from_init,
            converged=sae.converged,
            **asdict(found),
        )
        for place, (sae, found) in enumerate(zip(saes, figures, strict=True))
    ]


def _save(sae: TrainedSAE, activations: Activations, digest: str, job: Job) -> None:
    from husai_core.saes import checkpoint

    try:
        checkpoint.check(sae)
    except UserError as error:
        raise UserError(f"training with seed {sae.seed} diverged ({error}); lower the learning rate") from error
    names = ("hook_name", "position", "source", "model_digest", "leaks_label")
    origin = {name: getattr(activations, name) for name in names} | {"activations_digest": digest}
    sae.hook_name = activations.hook_name
    checkpoint.save(sae, job.output("saes", "sae"), sae.describe() | origin)


class _Reporter:
    """Passes progress and curves on, not more often than anybody can read."""

    def __init__(self, job: Job) -> None:
        self.job, self.last = job, 0.0

    def step(self, done: int, total: int, figures: dict[str, float]) -> None:
        if figures:
            self.job.metrics(done, figures)
        if figures or time.monotonic() - self.last > PROGRESS_SECONDS:
            self.job.progress(done, total, "rows")
            self.last = time.monotonic()


class _Keeper:
    """Keeps a resumable state every minute, and once when the worker is about to stop."""

    def __init__(self, job: Job) -> None:
        self.job, self.last, self.drained = job, time.monotonic(), False

    def offer(self, save: Save) -> None:
        draining = self.job.draining and not self.drained
        if draining or time.monotonic() - self.last > CHECKPOINT_SECONDS:
            path = self.job.checkpoint()
            save(path)
            self.job.commit_checkpoint(path)
            self.last, self.drained = time.monotonic(), self.drained or draining


KIND = Kind(spec=Spec, result=Result, inputs=INPUTS, outputs=OUTPUTS, run=run, presets=PRESETS)
