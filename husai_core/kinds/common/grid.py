"""Studies that train a grid of SAEs: variants of a recipe × seeds × conditions. Light: no torch.

A study that is a grid says which cells there are; this module asks for as few trainings as possible, measures what
came of them, and reads it all back cell by cell (`grid_table` makes the table). Everything is a pure function of the
grid and of how the children ended, so a study is asked again after every round and goes on from where it is, and a
study that is repeated finds the trainings of the first one by their digests.

    def _grid(spec, activations):
        variants = {f"k = {k}": {"k": k} for k in spec.k}
        return Grid(spec.recipe, variants, spec.seeds, {"": activations})

    def plan(spec, inputs, done):
        return _grid(spec, inputs["activations"]).plan(done)

    def summarise(spec, inputs, done, job):
        grid = _grid(spec, [artifact.digest for artifact in inputs.many("activations")])
        return Result(table=tabulate(grid.rows(done), FIGURES, against="k = 8"))
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from pydantic import Field

from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult
from husai_core.kinds.kind import Child, Done, From
from husai_core.saes.recipe import SPARSITY, SAERecipe, together

MOST = 64
"""Variants, and seeds, of one training."""
TRAINING = "train.sae"
MISSING = "missing"
"""The state of a cell or measure that has not ended, or was never asked for."""


class Cell(NamedTuple):
    """One SAE of a grid: a variant of the recipe, under a condition, with a seed."""

    condition: str
    variant: str
    seed: int


@dataclass(frozen=True)
class Bank:
    """Cells that one job trains in one pass over the rows of a condition: every variant with every seed."""

    name: str
    condition: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def cells(self) -> list[Cell]:
        """Its cells in the order of its checkpoints."""
        return [Cell(self.condition, variant, seed) for variant, seed in product(self.variants, self.seeds)]

    @property
    def halves(self) -> list[Bank]:
        """The same cells in two banks: half of the variants each, or half of the seeds of an only variant."""
        if len(self.variants) > 1:
            at = len(self.variants) // 2
            splits = [(self.variants[:at], self.seeds), (self.variants[at:], self.seeds)]
        else:
            at = len(self.seeds) // 2
            splits = [(self.variants, self.seeds[:at]), (self.variants, self.seeds[at:])]
        return [Bank(f"{self.name}.{n}", self.condition, *split) for n, split in enumerate(splits, 1)]


class Row(BaseResult):
    """What became of one cell. Cells that failed, were cancelled or are missing are rows like the others."""

    condition: str
    variant: str
    seed: int
    state: str = Field(description="how its training ended; `missing` if it was never asked for")
    reason: str | None = Field(None, description="why it did not succeed, or was not measured")
    sae: str | None = Field(None, description="digest of its checkpoint")
    figures: dict[str, float | None] = Field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        """Where it stands in the grid."""
        return Cell(self.condition, self.variant, self.seed)


@dataclass(frozen=True)
class Grid:
    """The cells of a study.

    Args:
        recipe: what all variants start from.
        variants: by label, the fields of the recipe that a variant changes.
        seeds: every variant is trained with each of them.
        conditions: by label, the activations to train on: digests, or a sibling's output.
        name: how the names of the trainings begin, for studies with several grids.

    Raises:
        ValueError: a variant is no recipe, or a seed is repeated.
    """

    recipe: SAERecipe
    variants: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    conditions: Mapping[str, Sequence[str | From]]
    name: str = "saes"

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed is repeated: {', '.join(map(str, self.seeds))}")
        for change in self.variants.values():
            self.recipe.changed(change)

    @property
    def cells(self) -> list[Cell]:
        """Every cell: condition by condition, variant by variant, seed by seed."""
        return [Cell(*cell) for cell in product(self.conditions, self.variants, self.seeds)]

    @property
    def banks(self) -> list[Bank]:
        """The fewest trainings that hold all cells; which cells share one depends on nothing but the grid."""
        banks: list[Bank] = []
        for condition in self.conditions:
            for variants in self._together():
                for start in range(0, len(self.seeds), MOST):
                    seeds = tuple(self.seeds[start : start + MOST])
                    banks.append(Bank(f"{self.name}-{len(banks) + 1}", condition, variants, seeds))
        return banks

    def current(self, done: Mapping[str, Done]) -> list[Bank]:
        """The banks as they stand: one that failed is trained again in halves, until what fails stands alone."""
        return [bank for planned in self.banks for bank in self._current(planned, done)]

    def plan(self, done: Mapping[str, Done]) -> list[Child]:
        """The trainings that are still to be asked for."""
        return [self._child(bank) for bank in self.current(done) if bank.name not in done]

    def rows(self, done: Mapping[str, Done]) -> list[Row]:
        """What became of every cell, in the order of `cells`; the figures are those of train.sae's members."""
        rows = {row.cell: row for bank in self.current(done) for row in _rows(bank, done.get(bank.name))}
        return [rows[cell] for cell in self.cells]

    def _together(self) -> list[tuple[str, ...]]:
        """The variants, by which can be trained in one pass."""
        groups: list[list[str]] = []
        for label in self.variants:
            for group in groups:
                if len(group) < MOST and self._fit([*group, label]):
                    group.append(label)
                    break
            else:
                groups.append([label])
        return [tuple(group) for group in groups]

    def _fit(self, labels: Sequence[str]) -> bool:
        try:
            together([self.recipe.changed(self.variants[label]) for label in labels])
        except ValueError:
            return False
        return True

    def _current(self, bank: Bank, done: Mapping[str, Done]) -> list[Bank]:
        ended = done.get(bank.name)
        if ended is None or ended.state != "failed" or len(bank.cells) == 1 or not self._can_train(bank, done):
            return [bank]
        return [smaller for half in bank.halves for smaller in self._current(half, done)]

    def _can_train(self, bank: Bank, done: Mapping[str, Done]) -> bool:
        """False where what it would be trained on does not exist, so that smaller banks would fail as well."""
        children = [source.child for source in self.conditions[bank.condition] if isinstance(source, From)]
        return all(child not in done or done[child].state == "succeeded" for child in children)

    def _child(self, bank: Bank) -> Child:
        first, *others = [self.recipe.changed(self.variants[label]) for label in bank.variants]
        changes = [{}, *(_change(first, other) for other in others)] if others else []
        spec = {"recipe": first.model_dump(mode="json"), "variants": changes, "seeds": list(bank.seeds)}
        return Child(bank.name, TRAINING, spec, {"activations": list(self.conditions[bank.condition])})


@dataclass(frozen=True)
class Measure:
    """A job of another kind about every SAE of a grid, or about the seeds of every variant together.

    Args:
        name: how the names of its jobs begin.
        kind: what measures.
        figures: from its result to the figures of a cell, or, over seeds, to estimates of a variant.
        spec: its spec, the same for all.
        inputs: by condition, its other input ports.
        port: the port that takes the SAEs.
        over_seeds: one job takes all seeds of a variant, at least `at_least` of them.
    """

    name: str
    kind: str
    figures: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Sequence[str | From]]] = field(default_factory=dict)
    port: str = "sae"
    over_seeds: bool = False
    at_least: int = 2

    def plan(self, rows: Sequence[Row], done: Mapping[str, Done]) -> list[Child]:
        """The jobs that are still to be asked for, about the SAEs that exist.

        A job over seeds waits until every seed of its variant has ended: a bank that failed is trained again in
        halves, and the job is asked for only once.
        """
        children = []
        for name, members in self._jobs(rows).items():
            if name not in done:
                inputs = {**self.inputs.get(members[0].condition, {}), self.port: [str(row.sae) for row in members]}
                children.append(Child(name, self.kind, self.spec, inputs))
        return children

    def rows(self, rows: Sequence[Row], done: Mapping[str, Done]) -> list[Row]:
        """The rows with the figures that it measured about single SAEs, and why where it did not."""
        jobs = {members[0].cell: done.get(name) for name, members in self._jobs(rows).items()}
        return [self._measured(row, jobs.get(row.cell)) for row in rows]

    def estimates(self, rows: Sequence[Row], done: Mapping[str, Done]) -> dict[tuple[str, str], dict[str, Estimate]]:
        """By condition and variant, the estimates that it measured over seeds; nothing where it did not succeed."""
        results = {
            (members[0].condition, members[0].variant): ended.result
            for name, members in self._jobs(rows).items()
            if (ended := done.get(name)) and ended.state == "succeeded" and ended.result is not None
        }
        return {
            key: {name: Estimate.model_validate(value) for name, value in self.figures(result).items()}
            for key, result in results.items()
        }

    def _jobs(self, rows: Sequence[Row]) -> dict[str, list[Row]]:
        """By name of the job, the rows that it is about."""
        trained = [row for row in rows if row.sae is not None]
        if not self.over_seeds:
            return {self._label(row.condition, row.variant, f"seed {row.seed}"): [row] for row in trained}
        pending = {(row.condition, row.variant) for row in rows if row.state == MISSING}
        groups: dict[str, list[Row]] = {}
        for row in trained:
            if (row.condition, row.variant) not in pending:
                groups.setdefault(self._label(row.condition, row.variant), []).append(row)
        return {name: members for name, members in groups.items() if len(members) >= self.at_least}

    def _label(self, condition: str, variant: str, *seed: str) -> str:
        """A name that no other cell's job has. An empty condition is left out, and then an empty variant, too."""
        cell = [condition, variant] if condition else [variant] if variant else []
        return ", ".join(map(_quoted, (self.name, *cell, *seed)))

    def _measured(self, row: Row, ended: Done | None) -> Row:
        if row.sae is None:
            return row
        if ended is None or ended.state != "succeeded" or ended.result is None:
            state = ended.state if ended else MISSING
            return row.model_copy(update={"reason": f"{self.name}: {(ended and ended.reason) or state}"})
        return row.model_copy(update={"figures": {**row.figures, **self.figures(ended.result)}})


def _quoted(text: str) -> str:
    """A piece of a name, in quotes where it could be mistaken for none, for two, or for one in quotes."""
    return text if text and ", " not in text and '"' not in text else json.dumps(text, ensure_ascii=False)


def _change(base: SAERecipe, recipe: SAERecipe) -> dict[str, Any]:
    """The fields of a recipe that differ from another's, as train.sae takes its variants."""
    before, after = base.model_dump(mode="json"), recipe.model_dump(mode="json")
    absent = {name for name in SPARSITY.values() if after[name] is None}
    return {name: value for name, value in after.items() if value != before[name] and name not in absent}


def _rows(bank: Bank, ended: Done | None) -> list[Row]:
    """What became of the cells of one bank."""
    if ended is None or ended.state != "succeeded" or ended.result is None:
        state, reason = (ended.state, ended.reason) if ended else (MISSING, None)
        return [Row(**cell._asdict(), state=state, reason=reason) for cell in bank.cells]
    saes, members = ended.outputs["saes"], ended.result["members"]
    return [
        Row(**cell._asdict(), state="succeeded", sae=sae, figures=_numbers(member))
        for cell, sae, member in zip(bank.cells, saes, members, strict=True)
    ]


def _numbers(member: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a member of train.sae's result."""
    labels = {"variant", "seed"}
    return {name: float(v) for name, v in member.items() if name not in labels and isinstance(v, int | float)}
