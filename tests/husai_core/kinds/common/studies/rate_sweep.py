"""Does the learning rate matter? A study for the tests of the toolkit: a grid, and the stability of its variants."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common import grid_table
from husai_core.kinds.common.grid import Grid, Measure
from husai_core.kinds.common.grid_table import GridTable, tabulate
from husai_core.kinds.kind import BaseSpec, Child, Done, From, Kind, Port
from husai_core.saes.recipe import SAERecipe

RECIPE = {"d_sae": 32, "k": 4, "tokens": 6_000, "batch_size": 100, "lr": 5e-3}
WORLD = {"rows": 1_000, "n_features": 24, "d_model": 12, "active": 2}
STABILITY = Measure(
    name="stability",
    kind="stress.trained_vs_random",
    figures=lambda result: {"pwmcc_excess": result["statistics"]["pwmcc_excess"]},
    port="saes",
    over_seeds=True,
)


class Spec(BaseSpec):
    """A sweep over learning rates."""

    rates: list[float] = Field([5e-3, 1e38], description="peak learning rates")
    seeds: list[int] = Field([0, 1])
    world_seed: int = 0
    stability: bool = False


class Result(BaseResult):
    """Its table."""

    table: GridTable


def _grid(spec: Spec) -> Grid:
    variants = {f"lr = {rate:g}": {"lr": rate} for rate in spec.rates}
    return Grid(SAERecipe.model_validate(RECIPE), variants, spec.seeds, {"world": [From("rows", "activations")]})


def _stability(spec: Spec, done: Mapping[str, Done]) -> Measure | None:
    if not (spec.stability and "rows" in done):
        return None
    rows = list(done["rows"].outputs.get("activations", []))
    return Measure(**{**vars(STABILITY), "inputs": {"world": {"activations": rows}}})


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """The rows and the trainings, then, once all trainings have ended, the stability of each variant."""
    if not done:
        world = {"source": "synthetic", "world": WORLD, "seed": spec.world_seed}
        return [Child("rows", "train.activations", world), *_grid(spec).plan(done)]
    trainings, measure = _grid(spec).plan(done), _stability(spec, done)
    return trainings or (measure.plan(_grid(spec).rows(done), done) if measure else [])


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The table of the sweep."""
    rows, measure = _grid(spec).rows(done), _stability(spec, done)
    estimates = measure.estimates(rows, done) if measure else {}
    first = next(iter(_grid(spec).variants))
    table = tabulate(rows, ["explained_variance", "l0"], first, ["explained_variance"], estimates)
    grid_table.write(table, job)
    return Result(table=table)


KIND = Kind(
    spec=Spec,
    result=Result,
    outputs={"table": Port("table", "summaries and cells as CSV")},
    plan=plan,
    summarise=summarise,
    children=("train.activations", "train.sae", "stress.trained_vs_random"),
    present=lambda result: grid_table.present(result.table),
)
