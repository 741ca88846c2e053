from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from pydantic import ValidationError

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.panels import PANELS, to_csv

ESTIMATE = Estimate(value=0.5, low=0.25, high=0.75, n=3)
EXAMPLES: list[tuple[panels.AnyPanel, list[list[str]]]] = [
    (
        panels.Headline(text="It works, mostly.", figures=[panels.Figure(label="accuracy", value=ESTIMATE)]),
        [
            ["figure", "value", "low", "high"],
            ["text", "It works, mostly.", "", ""],
            ["accuracy", "0.5", "0.25", "0.75"],
        ],
    ),
    (
        panels.Table(
            columns=[panels.Column(label="seed"), panels.Column(label="share"), panels.Column(label="done")],
            rows=[[1, ESTIMATE, True], [2, None, False]],
        ),
        [
            ["seed", "share", "share low", "share high", "done"],
            ["1", "0.5", "0.25", "0.75", "True"],
            ["2", "", "", "", "False"],
        ],
    ),
    (
        panels.Intervals(
            rows=[panels.IntervalRow(label="excess", estimate=ESTIMATE, points=[("seed 1", 0.1)], bar=0.05, op=">=")],
            references=[panels.Reference(label="chance", value=0.0)],
        ),
        [
            ["label", "unit", "value", "low", "high", "needed", "bar"],
            ["excess", "", "0.5", "0.25", "0.75", ">=", "0.05"],
            ["excess", "seed 1", "0.1", "", "", "", ""],
            ["chance", "reference", "0.0", "", "", "", ""],
        ],
    ),
    (
        panels.Lines(series=[panels.Series(label="a", points=[(1, 0.5), (2, 0.25)])], x_label="step", y_label="loss"),
        [["series", "step", "loss"], ["a", "1.0", "0.5"], ["a", "2.0", "0.25"]],
    ),
    (
        panels.Scatter(
            points=[panels.ScatterPoint(label="a", x=Estimate(value=8), y=ESTIMATE, group="topk")],
            x_label="L0",
            y_label="EV",
        ),
        [
            ["group", "label", "L0", "L0 low", "L0 high", "EV", "EV low", "EV high"],
            ["topk", "a", "8.0", "", "", "0.5", "0.25", "0.75"],
        ],
    ),
    (
        panels.HeatMap(rows=["seed 1", "seed 2"], columns=["x", "y"], values=[[None, 0.5], [0.25, 1]]),
        [["", "x", "y"], ["seed 1", "", "0.5"], ["seed 2", "0.25", "1.0"]],
    ),
    (
        panels.Bars(bars=[panels.Bar(label="plain", value=0.5)], x_label="accuracy"),
        [["label", "accuracy"], ["plain", "0.5"]],
    ),
    (panels.Text(paragraphs=["One,", 'two "three"']), [["text"], ["One,"], ['two "three"']]),
    (
        panels.FeatureCard(
            latent=7,
            figures=[panels.Figure(label="frequency", value=0.01)],
            contexts=[panels.Context(tokens=["=", "\n"], activations=[0.0, 1.5])],
            promoted=[("sum", 0.25)],
            suppressed=[("the", -0.5)],
        ),
        [
            ["what", "label", "value", "low", "high"],
            ["latent", "7", "", "", ""],
            ["figure", "frequency", "0.01", "", ""],
            ["context 1", "'=", "0.0", "", ""],
            ["context 1", "'\n", "1.5", "", ""],
            ["promoted", "sum", "0.25", "", ""],
            ["suppressed", "the", "-0.5", "", ""],
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("panel", "rows"), EXAMPLES, ids=[panel.type for panel, _ in EXAMPLES])
def test_every_panel_is_csv_whose_estimates_take_three_columns(panel: panels.AnyPanel, rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(to_csv(panel)))) == rows


def test_the_examples_show_every_type_of_panel() -> None:
    types = set(PANELS.json_schema()["items"]["discriminator"]["mapping"])
    assert {panel.type for panel, _ in EXAMPLES} == types


def test_csv_keeps_full_precision() -> None:
    bars = panels.Bars(bars=[panels.Bar(label="third", value=1 / 3)])
    assert float(to_csv(bars).splitlines()[1].split(",")[1]) == 1 / 3


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "＝1"])
def test_no_text_of_a_csv_is_a_formula_and_figures_keep_their_sign(formula: str) -> None:
    table = panels.Table(columns=[panels.Column(label="=a"), panels.Column(label="x")], rows=[[formula, -0.5]])
    assert list(csv.reader(io.StringIO(to_csv(table), newline=""))) == [["'=a", "x"], [f"'{formula}", "-0.5"]]


def test_a_carriage_return_begins_no_new_line_of_a_csv() -> None:
    text = to_csv(panels.Text(paragraphs=["a\r=1+1", "b"]))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["text"], ["a\n=1+1"], ["b"]]


def test_panels_survive_json() -> None:
    every = [panel for panel, _ in EXAMPLES]
    assert PANELS.validate_json(PANELS.dump_json(every)) == every


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "table", "columns": [{"label": "a"}], "rows": [[1, 2]]},
        {"type": "table", "columns": [{"label": "a"}], "rows": [[float("nan")]]},
        {"type": "heat_map", "rows": ["a"], "columns": ["b"], "values": [[0.5, 0.5]]},
        {"type": "bars", "bars": [{"label": "a", "value": float("inf")}]},
        {"type": "feature_card", "latent": 1, "contexts": [{"tokens": ["a", "b"], "activations": [1.0]}]},
    ],
)
def test_a_panel_that_cannot_be_drawn_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PANELS.validate_python([broken])


def test_a_result_that_no_kind_knows_shows_all_that_fits_into_cells() -> None:
    document = {
        "accuracy": 0.5,
        "loss": float("nan"),
        "name": "a",
        "seeds": [1, 2],
        "statistics": {"excess": {"value": 0.5, "low": 0.25, "high": 0.75}, "count": 3},
        "members": [{"seed": 1, "deep": {"x": [[]]}}, {"seed": 2, "l0": 8.0}],
        "matrix": [[1.0, 2.0]],
    }
    figures, statistics, members = panels.plain(document, "Result")
    assert isinstance(figures, panels.Table)
    assert isinstance(statistics, panels.Table)
    assert isinstance(members, panels.Table)
    assert figures.rows == [["accuracy", 0.5], ["name", "a"], ["seeds", "1, 2"]]
    assert statistics.rows == [["excess", ESTIMATE.model_copy(update={"n": 0})], ["count", 3]]
    assert ([column.label for column in members.columns], members.rows) == (["seed", "l0"], [[1, None], [2, 8.0]])
    assert panels.plain({}) == []
