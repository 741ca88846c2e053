from __future__ import annotations

import csv
import io

import pytest

from husai_core.estimate import Estimate
from husai_core.kinds.common.grid import Row
from husai_core.kinds.common.grid_table import GridTable, cells_to_csv, present, tabulate, to_csv

VALUES = {
    "base": [0.80, 0.82, 0.78, 0.81],
    "better": [0.90, 0.93, 0.87, 0.91],
    "alike": [0.81, 0.81, 0.78, 0.82],
    "sparse": [0.70, None, 0.75, None],
}


def rows(condition: str = "") -> list[Row]:
    return [
        Row(condition=condition, variant=variant, seed=seed, state="succeeded" if value else "failed",
            reason=None if value else "it diverged", sae="d" * 64 if value else None,
            figures={"ev": value, "l0": 8.0} if value else {})
        for variant, values in VALUES.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip


def table() -> GridTable:
    return tabulate(rows(), ["ev", "l0"], against="base", compared=["ev"])


def test_means_rest_on_the_seeds_that_there_are() -> None:
    summaries = {summary.variant: summary for summary in table().summaries}
    assert summaries["base"].estimates["ev"].value == pytest.approx(0.8025)
    assert (summaries["sparse"].seeds, summaries["sparse"].planned, summaries["sparse"].estimates["ev"].n) == (2, 4, 2)
    assert summaries["sparse"].estimates["ev"].low is None
    assert table().states == {"succeeded": 14, "failed": 2}


def test_differences_are_paired_by_seed_and_corrected_for_their_number() -> None:
    comparisons = {comparison.variant: comparison for comparison in table().comparisons}
    better, alike, sparse = comparisons["better"], comparisons["alike"], comparisons["sparse"]
    assert better.difference.value == pytest.approx(0.1)
    assert better.p_value is not None
    assert better.p_adjusted == pytest.approx(3 * better.p_value)
    assert better.differs is True
    assert alike.differs is False
    assert (sparse.difference.n, sparse.p_value, sparse.differs) == (2, None, None)
    assert sparse.difference.value == pytest.approx((-0.10 - 0.03) / 2)


def test_a_star_and_its_interval_never_contradict_each_other() -> None:
    """Two of eight differences make the mean; the paired t-test does not tell it from zero."""
    differences = [0.002, 0.001, 0.003, 0.0, 0.002, 0.04, 0.001, 0.05]
    cells = [
        Row(condition="", variant=variant, seed=seed, state="succeeded", sae="d" * 64, figures={"ev": value})
        for variant, offset in (("base", 0.0), ("new", 1.0))
        for seed, value in enumerate(0.5 + offset * difference for difference in differences)
    ]
    (comparison,) = tabulate(cells, ["ev"], against="base").comparisons
    assert comparison.difference.low is not None
    assert comparison.difference.low < 0
    assert comparison.differs is False


def test_a_mean_over_fewer_seeds_than_were_trained_says_so() -> None:
    cells = [row.model_copy(update={"figures": {"ev": 0.8}}) if row.seed == 0 else row for row in rows()]
    partial = tabulate(cells, ["ev", "l0"])
    means = present(partial)[1]
    assert means.type == "table"
    assert [column.label for column in means.columns] == ["variant", "seeds", "ev", "l0", "seeds with l0"]
    assert [row[-1] for row in means.rows] == [3, 3, 3, 1]
    lines = list(csv.DictReader(io.StringIO(to_csv(partial))))
    assert [(line["ev_n"], line["l0_n"]) for line in lines] == [("4", "3"), ("4", "3"), ("4", "3"), ("2", "1")]


def test_a_variant_that_does_not_exist_cannot_be_compared_with() -> None:
    with pytest.raises(ValueError, match="'bsae' is no variant"):
        tabulate(rows(), ["ev"], against="bsae")


@pytest.mark.parametrize(("name", "limits"), [("dead_fraction", (0.0, 1.0)), ("drift_from_init", (0.0, 1.0))])
def test_intervals_end_where_figures_can(name: str, limits: tuple[float, float]) -> None:
    shares = [0.0, 0.9, 1.0]
    cells = [
        Row(condition="", variant="a", seed=seed, state="succeeded", sae="d" * 64, figures={name: share})
        for seed, share in enumerate(shares)
    ]
    mean = tabulate(cells, [name]).summaries[0].estimates[name]
    assert (mean.low, mean.high) == limits


def test_conditions_are_compared_within_themselves() -> None:
    both = tabulate([*rows("early"), *rows("late")], ["ev"], against="base")
    assert [(c.condition, c.variant) for c in both.comparisons] == [
        (condition, variant) for condition in ("early", "late") for variant in ("better", "alike", "sparse")
    ]


def test_csv_holds_every_summary_and_every_cell() -> None:
    summaries = list(csv.DictReader(io.StringIO(to_csv(table()))))
    assert [line["variant"] for line in summaries] == list(VALUES)
    assert float(summaries[1]["ev_difference"]) == pytest.approx(0.1)
    assert summaries[0]["ev_difference"] == summaries[3]["ev_p_adjusted"] == ""
    cells = list(csv.DictReader(io.StringIO(cells_to_csv(table()))))
    assert len(cells) == 16
    assert [cell["state"] for cell in cells].count("failed") == 2


def test_estimates_over_seeds_stand_beside_the_means() -> None:
    overlap = {("", "base"): {"pwmcc_excess": Estimate(value=0.2, low=0.1, high=0.3, n=4)}}
    with_overlap = tabulate(rows(), ["ev"], estimates=overlap)
    assert with_overlap.figures == ["ev", "pwmcc_excess"]
    assert with_overlap.comparisons == []
    first, second = list(csv.DictReader(io.StringIO(to_csv(with_overlap))))[:2]
    assert (first["pwmcc_excess_low"], second["pwmcc_excess_low"]) == ("0.1", "")


def test_panels_say_how_much_there_is_and_fold_the_cells_away() -> None:
    headline, means, differences, cells = present(table())
    assert headline.type == "headline"
    assert headline.text == (
        "14 of 16 SAEs were trained, 2 failed. 1 of 3 differences stand after the correction for their number."
    )
    assert means.type == "table"
    assert [column.label for column in means.columns] == ["variant", "seeds", "ev", "l0"]
    assert differences.type == "intervals"
    assert [row.label for row in differences.rows] == ["better *", "alike", "sparse"]
    assert cells.folded
