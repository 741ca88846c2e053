from __future__ import annotations

from pathlib import Path

import pytest

from husai_core import kinds, panels
from husai_core.evidence import BaseResult
from husai_core.panels import PANELS
from tests.husai_core.kinds.stress_job import network, run

RECIPE = {"d_sae": 48, "k": 4, "tokens": 128 * 40, "batch_size": 128, "lr": 5e-3, "dead_after_tokens": 2000}
WORLD = {"rows": 1000, "n_features": 24, "d_model": 12, "active": 2}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BaseResult]:
    """Small banks of one recipe and of several."""
    home = tmp_path_factory.mktemp("present")
    rows, activations, _ = run("train.activations", home / "rows", {"source": "synthetic", "world": WORLD})
    single, _, _ = run("train.sae", home / "single", {"recipe": RECIPE, "seeds": [0, 1, 2]}, activations=activations)
    variants = [{}, {"k": 12}, {"architecture": "relu", "l1": 0.1}]
    spec = {"recipe": RECIPE, "seeds": [0, 1, 2], "variants": variants}
    several, _, _ = run("train.sae", home / "several", spec, activations=activations)
    return {"rows": rows, "single": single, "several": several}


def shown(kind: str, result: BaseResult) -> list[panels.AnyPanel]:
    """The panels of a result, as they come back from JSON."""
    panels_shown = kinds.get(kind).panels(result.model_dump(mode="json"))
    return PANELS.validate_json(PANELS.dump_json(panels_shown))


def test_a_bank_of_variants_warns_of_unequal_sparsity(results: dict[str, BaseResult]) -> None:
    headline, table, scatter, intervals, *changes, curves, members = shown("train.sae", results["several"])
    assert isinstance(headline, panels.Headline)
    assert "3 variants, 9 SAEs: explained variance on held-out rows from" in headline.text
    assert "The variants differ in L0 (4 to " in headline.text
    assert headline.text.endswith("compare them at equal L0.")
    assert isinstance(table, panels.Table)
    assert isinstance(scatter, panels.Scatter)
    assert [row[0] for row in table.rows] == ["topk k 4", "topk k 12", "relu l1 0.1"]
    assert {point.group for point in scatter.points} == {"topk", "relu"}
    assert all(point.y.low is not None for point in scatter.points)
    assert isinstance(intervals, panels.Intervals)
    assert [len(row.points) for row in intervals.rows] == [3, 3, 3]
    assert [panel.title for panel in changes] == [
        "Change of the explained variance by the last doubling of the tokens",
        "Change of the PWMCC by the last doubling of the tokens",
    ]
    assert isinstance(curves, panels.Lines)
    assert curves.log_y
    assert len(curves.series) == 9
    assert len({series.label for series in curves.series}) == 3
    assert members.folded
    assert isinstance(members, panels.Table)
    assert len(members.rows) == 9


def test_a_bank_of_one_recipe_gives_its_means_with_intervals(results: dict[str, BaseResult]) -> None:
    headline, *_ = shown("train.sae", results["single"])
    result = kinds.get("train.sae").result.model_validate(results["single"])
    assert isinstance(headline, panels.Headline)
    (mean,) = result.means  # type: ignore[attr-defined]
    assert mean.explained_variance.low < mean.explained_variance.value < mean.explained_variance.high
    figures = {figure.label: figure.value for figure in headline.figures}
    assert figures["explained variance"] == mean.explained_variance
    assert mean.dead_fraction.low >= 0
    assert headline.text.startswith("3 SAEs (topk k 4) explain 0.")
    assert "L0" not in headline.text


def test_the_last_doubling_is_shown_against_its_margin(results: dict[str, BaseResult]) -> None:
    headline, _, change, overlap, *_ = shown("train.sae", results["single"])
    (said,) = kinds.get("train.sae").result.model_validate(results["single"]).doublings  # type: ignore[attr-defined]
    assert isinstance(headline, panels.Headline)
    assert next(figure.value for figure in headline.figures if figure.label == "settled") == said.settled == "no"
    assert "still changed more than the margins allow" in headline.note
    for panel, figure, limit in ((change, "explained_variance", 0.01), (overlap, "pwmcc", 0.02)):
        assert isinstance(panel, panels.Intervals)
        assert [reference.value for reference in panel.references] == [-limit, limit]
        assert [row.estimate for row in panel.rows] == [said.changes[figure]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"recipe": RECIPE | {"measure_half": False}}, "unknown. The recipe leaves the measurement"),
        ({"seeds": [0]}, "unknown: below 3 seeds"),
        ({"recipe": RECIPE | {"lr": 1e-9}, "seeds": [0, 1, 2]}, "does not say that more tokens would bring nothing"),
    ],
)
def test_what_is_not_known_of_the_last_doubling_is_said(
    change: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    _, activations, _ = run("train.activations", tmp_path / "rows", {"source": "synthetic", "world": WORLD})
    spec = {"recipe": RECIPE, "seeds": [0, 1]} | change
    result, _, _ = run("train.sae", tmp_path / "saes", spec, activations=activations)
    headline, *_ = shown("train.sae", result)
    assert sentence in headline.note


def test_tables_of_a_bank_fit_eighty_columns(results: dict[str, BaseResult]) -> None:
    for panel in shown("train.sae", results["several"]):
        if isinstance(panel, panels.Table):
            assert sum(_width(panel, i) + 2 for i in range(len(panel.columns))) <= 82


def _width(table: panels.Table, i: int) -> int:
    """Characters of a column: an interval of three digits takes 20."""
    cells = [row[i] for row in table.rows]
    sizes = [len(cell) if isinstance(cell, str) else 6 if isinstance(cell, int | float) else 20 for cell in cells]
    return max(len(table.columns[i].label), *sizes)


def test_rows_say_their_hooks_and_splits(results: dict[str, BaseResult]) -> None:
    headline, hooks, splits = shown("train.activations", results["rows"])
    assert isinstance(headline, panels.Headline)
    assert "1000 rows at 1 hook (synthetic) of width 12" in headline.text
    assert isinstance(hooks, panels.Table)
    assert hooks.rows[0][:2] == ["synthetic", 12]
    assert isinstance(splits, panels.Table)
    assert splits.rows[2] == ["test", 200]


def test_a_network_shows_its_accuracy_its_leak_test_with_chance_and_its_curves(tmp_path: Path) -> None:
    network(tmp_path)
    spec = {"p": 13, "d_model": 32, "n_heads": 2, "d_mlp": 64, "steps": 60, "batch_size": 128}
    result, _, _ = run("train.transformer", tmp_path / "again", spec)
    headline, leak, loss, accuracy, figures = shown("train.transformer", result)
    assert isinstance(headline, panels.Headline)
    assert "chance is 7.69 %" in headline.text
    assert isinstance(leak, panels.Bars)
    assert leak.references[0].value == 1 / 13
    assert isinstance(loss, panels.Lines)
    assert loss.log_y
    assert isinstance(accuracy, panels.Lines)
    assert accuracy.references == leak.references
    assert isinstance(figures, panels.Table)
    assert ["test accuracy", result.test_accuracy] in figures.rows  # type: ignore[attr-defined]


def test_a_network_that_sees_the_answer_says_so(tmp_path: Path) -> None:
    spec = {"p": 13, "d_model": 32, "n_heads": 2, "d_mlp": 64, "steps": 5, "batch_size": 128}
    leaking = {**spec, "position": "answer_token", "leaks_label": True}
    headline, *_ = shown("train.transformer", run("train.transformer", tmp_path, leaking)[0])
    assert isinstance(headline, panels.Headline)
    assert (headline.tone, "shows the answer" in headline.note) == ("bad", True)
