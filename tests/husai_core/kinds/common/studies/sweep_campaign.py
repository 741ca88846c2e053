"""Does it matter on several worlds? A study of studies for the tests of the toolkit, which goes on in rounds."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from husai_core.evidence import BaseResult
from husai_core.job import Inputs, Job
from husai_core.kinds.common.grid_table import GridTable
from husai_core.kinds.kind import BaseSpec, Child, Done, Kind

SWEEP = "study.rate_sweep"


class Spec(BaseSpec):
    """Sweeps on several worlds, one after another."""

    worlds: list[int] = Field([0, 1])


class Result(BaseResult):
    """How the sweeps ended."""

    explained: dict[str, float | None]
    states: dict[str, dict[str, int]]


def plan(spec: Spec, inputs: Mapping[str, list[str]], done: Mapping[str, Done]) -> list[Child]:
    """One sweep per round."""
    left = [seed for seed in spec.worlds if f"world {seed}" not in done]
    sweep = {"rates": [5e-3], "world_seed": left[0]} if left else {}
    return [Child(f"world {left[0]}", SWEEP, sweep)] if left else []


def summarise(spec: Spec, inputs: Inputs, done: Mapping[str, Done], job: Job) -> Result:
    """The means of all sweeps."""
    tables = {name: GridTable.model_validate((ended.result or {})["table"]) for name, ended in done.items()}
    explained = {name: table.summaries[0].estimates["explained_variance"].value for name, table in tables.items()}
    return Result(explained=explained, states={name: table.states for name, table in tables.items()})


KIND = Kind(
    spec=Spec,
    result=Result,
    plan=plan,
    summarise=summarise,
    children=(SWEEP,),
)
