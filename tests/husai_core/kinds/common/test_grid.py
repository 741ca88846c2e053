from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from husai_core import identity, kinds, local_job
from husai_core.errors import UserError
from husai_core.kinds import study
from husai_core.kinds.common.grid import MOST, Cell, Grid, Measure, Row
from husai_core.kinds.kind import Done, From
from husai_core.local_job import LocalResult, LocalRunner
from husai_core.saes.recipe import SAERecipe

STUDIES = Path(__file__).parent / "studies"
SWEEP, CAMPAIGN = "study.rate_sweep", "study.sweep_campaign"
RECIPE = {"d_sae": 32, "k": 4, "tokens": 6_000, "batch_size": 100}
GOOD, BROKEN = "lr = 0.005", "lr = 1e+38"


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """The registry finds the studies of the tests as it would find files of the package."""
    study.__path__.append(str(STUDIES))
    _forget()
    yield
    study.__path__.remove(str(STUDIES))
    _forget()


def _forget() -> None:
    for cached in (kinds.names, kinds.get, kinds.code_digest):
        cached.cache_clear()


def grid(**changes: Any) -> Grid:
    fields: dict[str, Any] = {
        "recipe": SAERecipe.model_validate(RECIPE),
        "variants": {"k = 2": {"k": 2}, "k = 4": {"k": 4}, "wide": {"d_sae": 64},
                     "jumprelu": {"architecture": "jumprelu", "target_l0": 4}},
        "seeds": [0, 1, 2],
        "conditions": {"early": ["a" * 64], "late": ["b" * 64]},
    }  # fmt: skip
    return Grid(**fields | changes)


def trained(grid: Grid, done: dict[str, Done], failing: Cell | None = None) -> dict[str, Done]:
    """What the next round of trainings gives, where every bank with the cell `failing` fails."""
    ended = {}
    for bank in grid.current(done):
        if bank.name in done:
            continue
        members = [{"variant": 0, "seed": cell.seed, "l0": float(cell.seed)} for cell in bank.cells]
        saes = ["/".join(map(str, cell)) for cell in bank.cells]
        good = Done("succeeded", None, {"members": members}, {"saes": saes})
        ended[bank.name] = Done("failed", "it diverged") if failing in bank.cells else good
    return ended


def test_variants_that_fit_share_one_training_per_condition() -> None:
    banks = grid().banks
    assert [(bank.condition, bank.variants) for bank in banks] == [
        (condition, variants)
        for condition in ("early", "late")
        for variants in (("k = 2", "k = 4", "jumprelu"), ("wide",))
    ]
    assert sorted(cell for bank in banks for cell in bank.cells) == sorted(grid().cells)
    assert len(grid().cells) == 2 * 4 * 3


def test_every_training_is_one_that_train_sae_takes_and_trains_what_the_grid_says() -> None:
    spec = kinds.get("train.sae").spec
    for bank, child in zip(grid().banks, grid().plan({}), strict=True):
        recipes = spec.model_validate(child.spec).recipes
        assert recipes == [grid().recipe.changed(grid().variants[label]) for label in bank.variants]
        assert child.inputs == {"activations": grid().conditions[bank.condition]}


def test_a_bank_has_no_more_seeds_than_train_sae_takes() -> None:
    wide = grid(seeds=range(MOST + 1), variants={"only": {}}, conditions={"": ["a"]})
    assert [len(bank.seeds) for bank in wide.banks] == [MOST, 1]


def test_a_wrong_variant_is_refused_when_the_grid_is_made() -> None:
    with pytest.raises(ValueError, match="experts"):
        grid(variants={"": {"experts": 4}})


def test_a_repeated_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="a seed is repeated: 0, 1, 0"):
        grid(seeds=[0, 1, 0])


@pytest.mark.parametrize("failing", [Cell("early", "k = 4", 1), Cell("late", "wide", 2)])
def test_a_cell_that_fails_costs_no_other_cell(failing: Cell) -> None:
    cells, done, rounds = grid(), dict[str, Done](), 0
    while planned := cells.plan(done):
        assert not {child.name for child in planned} & done.keys()
        done |= trained(cells, done, failing)
        rounds += 1
    assert rounds <= 5
    rows = {row.cell: row for row in cells.rows(done)}
    assert list(rows) == cells.cells
    assert {cell for cell, row in rows.items() if row.state != "succeeded"} == {failing}
    assert rows[failing].reason == "it diverged"
    for cell, row in rows.items():
        assert row.sae == (None if cell == failing else "/".join(map(str, cell)))


@pytest.mark.parametrize("state", ["cancelled", "blocked", "timed_out"])
def test_cells_that_did_not_fail_are_not_tried_again_and_say_what_became_of_them(state: str) -> None:
    done = trained(grid(), {})
    done["saes-1"] = Done(state, "by its owner")
    del done["saes-4"]
    rows = grid().rows(done)
    assert {row.state for row in rows} == {"succeeded", state, "missing"}
    assert {(row.condition, row.variant) for row in rows if row.state == "missing"} == {("late", "wide")}
    assert [child.name for child in grid().plan(done)] == ["saes-4"]


def test_where_the_rows_are_missing_nothing_is_tried_again() -> None:
    cells = grid(conditions={"early": [From("rows", "activations")]})
    done = {"rows": Done("failed", "no rows"), "saes-1": Done("failed", "input"), "saes-2": Done("failed", "input")}
    assert cells.plan(done) == []
    assert {row.state for row in cells.rows(done)} == {"failed"}


def test_measures_are_asked_for_what_was_trained_and_say_what_failed() -> None:
    cells = grid(conditions={"early": ["a"]}, variants={"k = 2": {"k": 2}})
    rows = cells.rows(trained(cells, {}))
    measure = Measure("probing", "benchmark.probing", lambda result: {"auc": result["auc"]}, {"k": 1})
    planned = measure.plan([rows[0], rows[1].model_copy(update={"sae": None}), rows[2]], {})
    assert [child.name for child in planned] == ["probing, early, k = 2, seed 0", "probing, early, k = 2, seed 2"]
    assert planned[0].inputs == {"sae": ["early/k = 2/0"]}
    done = {planned[0].name: Done("succeeded", None, {"auc": 0.9}), planned[1].name: Done("failed", "no data")}
    assert [child.name for child in measure.plan(rows, done)] == ["probing, early, k = 2, seed 1"]
    first, second, third = measure.rows(rows, done)
    assert first.figures == {"l0": 0.0, "auc": 0.9}
    assert (second.reason, third.reason) == ("probing: missing", "probing: no data")


def test_a_measure_over_seeds_waits_for_the_halves_of_a_bank_that_failed() -> None:
    cells = grid(conditions={"early": ["a"]}, variants={"k = 2": {"k": 2}}, seeds=[0, 1, 2, 3, 4, 5])
    measure = Measure("stability", "stress.trained_vs_random", dict, over_seeds=True)
    failing, done, asked = Cell("early", "k = 2", 5), dict[str, Done](), []
    while trainings := cells.plan(done):
        done |= trained(cells, done, failing)
        asked += measure.plan(cells.rows(done), done) if cells.plan(done) else []
        assert trainings
    assert asked == []
    (child,) = measure.plan(cells.rows(done), done)
    assert child.inputs["sae"] == [f"early/k = 2/{seed}" for seed in range(5)]


def test_no_two_cells_have_a_measure_of_one_name() -> None:
    labels = ["", "a", "b", "a, b", '"a"', '""', "seed 0"]
    cells = [Cell(*cell, 0) for cell in product(labels, labels)]
    rows = [Row(**cell._asdict(), state="succeeded", sae=str(cell)) for cell in cells]
    for over_seeds in (False, True):
        measure = Measure("m", "stress.ood", dict, over_seeds=over_seeds, at_least=1)
        assert len({child.name for child in measure.plan(rows, {})}) == len(cells)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalResult, dict[str, Done]]:
    """Two learning rates, one of which diverges, with two seeds each, and their stability."""
    runner = LocalRunner(tmp_path_factory.mktemp("sweep"))
    result = runner.run(SWEEP, {"stability": True, "seeds": [0, 1, 2]})
    return result, runner.children


def test_a_real_grid_with_cells_that_fail(sweep: tuple[LocalResult, dict[str, Done]]) -> None:
    outcome, children = sweep
    table = outcome.result.table
    assert table.states == {"succeeded": 3, "failed": 3}
    assert all("diverged" in str(row.reason) for row in table.rows if row.variant == BROKEN)
    good, broken = table.summaries
    assert (good.seeds, good.planned, broken.seeds, broken.planned) == (3, 3, 0, 3)
    explained = [row.figures["explained_variance"] for row in table.rows if row.variant == GOOD]
    assert good.estimates["explained_variance"].value == pytest.approx(sum(map(float, explained)) / 3)  # type: ignore[arg-type]
    assert good.estimates["explained_variance"].low is not None
    assert broken.estimates["explained_variance"].value is None
    (comparison,) = table.comparisons
    assert (comparison.variant, comparison.p_adjusted, comparison.differs) == (BROKEN, None, None)
    assert good.estimates["pwmcc_excess"].n == 3
    assert f"stability, world, {GOOD}" in children


def test_its_table_is_written_as_csv_and_shown(sweep: tuple[LocalResult, dict[str, Done]]) -> None:
    outcome, _ = sweep
    (folder,) = outcome.paths["table"]
    cells = (folder / "cells.csv").read_text().splitlines()
    assert len(cells) == 1 + 6
    assert cells[0].startswith("condition,variant,seed,state,reason,sae,explained_variance")
    summaries = (folder / "summaries.csv").read_text().splitlines()
    assert summaries[0].startswith("condition,variant,seeds,planned,explained_variance,explained_variance_low")
    assert [line.split(",")[2] for line in summaries[1:]] == ["3", "0"]
    headline = outcome.panels[0]
    assert headline.type == "headline"
    assert headline.text.startswith("3 of 6 SAEs were trained, 3 failed.")
    assert "3 of 6 SAEs" in outcome._repr_html_()


def test_a_study_that_is_repeated_trains_nothing_again(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path)
    runner.run(SWEEP, {"rates": [5e-3]})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/job.json")}
    runner.run(SWEEP, {"rates": [5e-3, 2e-3]})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    LocalRunner(tmp_path).run(SWEEP, {"rates": [5e-3]})
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_children_that_failed_are_tried_again_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = local_job.Kind.execute

    def refuse(kind: local_job.Kind, *arguments: Any) -> Any:
        if kind.name == "train.sae":
            raise UserError("no room")
        return train(kind, *arguments)

    with monkeypatch.context() as full:
        full.setattr(local_job.Kind, "execute", refuse)
        lacking = LocalRunner(tmp_path).run(SWEEP, {"rates": [5e-3]})
    rows = next(path for path in tmp_path.glob("*/*-activations"))
    written = rows.stat().st_mtime_ns
    again = LocalRunner(tmp_path).run(SWEEP, {"rates": [5e-3]})
    assert (lacking.complete, again.complete) == (False, True)
    assert again.result.table.states == {"succeeded": 2}
    assert rows.stat().st_mtime_ns == written


def test_a_fault_of_the_machine_is_no_failure_of_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: Any) -> Any:
        raise OSError("no space left")

    monkeypatch.setattr(local_job.Kind, "execute", fill)
    with pytest.raises(OSError, match="no space left"):
        LocalRunner(tmp_path).run(SWEEP, {"rates": [5e-3]})


def test_a_study_of_studies_runs_round_by_round(tmp_path: Path) -> None:
    runner = LocalRunner(tmp_path)
    outcome = runner.run(CAMPAIGN)
    assert list(runner.children) == ["world 0", "world 1"]
    assert outcome.result.states == {f"world {seed}": {"succeeded": 2} for seed in (0, 1)}
    values = list(outcome.result.explained.values())
    assert None not in values
    assert values[0] != values[1]


def test_a_study_of_studies_has_the_code_and_the_scopes_of_its_grandchildren() -> None:
    below = kinds.descendants(CAMPAIGN)
    assert {SWEEP, "train.activations", "train.sae", "stress.trained_vs_random"} <= set(below)
    modules = [kinds.get(name).module for name in below]
    files = {path.relative_to(identity.PACKAGE).as_posix() for path in identity.sources(modules)}
    assert {"kinds/stress/trained_vs_random.py", "saes/trainer.py", "activations/store.py"} <= files


def test_no_name_is_used_twice() -> None:
    names = [bank.name for bank in grid().banks] + [half.name for bank in grid().banks for half in bank.halves]
    assert len(set(names)) == len(names)
    for bank in grid().banks:
        halves = [cell for half in bank.halves for cell in half.cells]
        assert sorted(halves) == sorted(bank.cells)
        assert sorted(map(tuple, product(bank.variants, bank.seeds))) == sorted(cell[1:] for cell in bank.cells)
    assert replace(grid(), name="second").banks[0].name == "second-1"
