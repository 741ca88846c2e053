import xml.etree.ElementTree as ET

import pytest

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.panels import (
    Bar,
    Bars,
    HeatMap,
    IntervalRow,
    Intervals,
    Lines,
    Reference,
    Scatter,
    ScatterPoint,
    Series,
)
from husai_core.render import figures

HOSTILE = "<b>&\"'</title><script>"


def of_class(markup: str, name: str) -> list[ET.Element]:
    return [element for element in ET.fromstring(markup).iter() if name in element.get("class", "").split()]


def texts(markup: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(markup).iter("text")]


def gauge(value=0.4, low=0.3, high=0.5, bar=0.05, op=">=") -> str:
    return figures.gauge(IntervalRow(label="t", estimate=Estimate(value=value, low=low, high=high), bar=bar, op=op))


def test_gauge_places_bar_value_and_ends_to_scale():
    (threshold,), (dot,) = of_class(gauge(), "threshold"), of_class(gauge(), "dot")
    (whisker,) = [line for line in of_class(gauge(), "whisker") if line.get("y1") == line.get("y2")]
    pixels = {
        0.05: float(threshold.get("x1")),
        0.4: float(dot.get("cx")),
        0.3: float(whisker.get("x1")),
        0.5: float(whisker.get("x2")),
    }
    slope = (pixels[0.5] - pixels[0.05]) / 0.45
    for value, x in pixels.items():
        assert x == pytest.approx(pixels[0.05] + slope * (value - 0.05), abs=0.02)


@pytest.mark.parametrize(("op", "end"), [(">=", "x1"), ("<=", "x2")])
def test_gauge_shades_the_side_that_passes_and_marks_the_end_that_counts(op, end):
    plot = gauge(op=op)
    (side,), (line,), (judged,) = (of_class(plot, name) for name in ("pass-side", "threshold", "judged"))
    left, width, bar = float(side.get("x")), float(side.get("width")), float(line.get("x1"))
    assert (left if op == ">=" else left + width) == pytest.approx(bar, abs=0.02)
    (whisker,) = [line for line in of_class(plot, "whisker") if line.get("y1") == line.get("y2")]
    assert float(judged.get("d")[1:].split(" ")[0]) + 5 == pytest.approx(float(whisker.get(end)), abs=0.02)


def test_gauge_without_a_figure_says_so_and_keeps_the_bar():
    plot = gauge(value=None, low=None, high=None)
    assert "no figure" in texts(plot)
    assert len(of_class(plot, "threshold")) == 1
    assert not of_class(plot, "dot")


def test_heat_map_shades_between_its_ends_and_prints_values():
    values = [[None, 0.2, 0.6], [0.2, None, 1.0]]
    plot = figures.heat_map(HeatMap(rows=["0", "1"], columns=["0", "1", "2"], values=values, low=0.2, high=1))
    shades = [float(cell.get("fill-opacity")) for cell in of_class(plot, "heat") if cell.get("height") != "8"]
    assert shades == pytest.approx([0.07, 0.535, 0.07, 1.0], abs=0.006)
    assert texts(plot).count("0.60") == 1
    assert len(of_class(plot, "blank")) == 2


def test_intervals_draw_every_unit_and_keep_values_as_tooltips():
    points = [("seeds 0 and 1", 0.70), ("seeds 0 and 2", 0.70), ("seeds 1 and 2", 0.9)]
    row = IntervalRow(label="trained", estimate=Estimate(value=0.77, low=0.6, high=0.95), points=points)
    plot = figures.intervals(Intervals(rows=[row], references=[Reference(label="chance", value=0.3)]))
    units = of_class(plot, "unit")
    assert len({(unit.get("cx"), unit.get("cy")) for unit in units}) == 3
    assert [u[0].text for u in units] == ["seeds 0 and 1: 0.7000", "seeds 0 and 2: 0.7000", "seeds 1 and 2: 0.9000"]
    (reference,) = of_class(plot, "reference")
    assert float(reference.get("x1")) < min(float(unit.get("cx")) for unit in units)


def test_an_unknown_interval_draws_no_whisker():
    row = IntervalRow(label="a", estimate=Estimate(value=0.5))
    assert not of_class(figures.intervals(Intervals(rows=[row])), "whisker")


def test_labels_of_near_references_stand_on_lines_of_their_own():
    near = [Reference(label=f"a long label {i}", value=0.5 + i / 1000) for i in range(3)]
    row = IntervalRow(label="a", estimate=Estimate(value=0.9))
    plot = ET.fromstring(figures.intervals(Intervals(rows=[row], references=near)))
    heights = {t.get("y") for t in plot.iter("text") if (t.text or "").startswith("a long")}
    assert len(heights) == 3


def test_lines_leave_out_what_a_logarithmic_axis_cannot_show():
    series = [Series(label="a", points=[(0, 1.0), (10, 1.0), (100, 0.0), (1000, 0.1)])]
    plot = figures.lines(Lines(series=series, x_label="x", y_label="y", log_x=True, log_y=True))
    (path,) = [p for p in of_class(plot, "line") if p.tag.endswith("path")]
    assert path.get("d").count("L") == 1


def test_series_of_one_label_share_a_legend_entry_and_a_colour():
    series = [Series(label="seed", points=[(0, i), (1, 2)]) for i in range(5)]
    plot = figures.lines(Lines(series=[*series, Series(label="other", points=[(0, 1)])], x_label="x", y_label="y"))
    assert texts(plot).count("seed") == 1
    assert len([p for p in of_class(plot, "s0") if p.tag == "path"]) == 5


def test_a_long_line_keeps_its_spikes():
    points = [(float(i), 1.0 if i == 4321 else 0.0) for i in range(10_000)]
    kept = figures.thin(points)
    assert len(kept) < 1300
    assert (4321.0, 1.0) in kept


def test_bars_start_at_zero_also_for_negative_values():
    plot = figures.bars(Bars(bars=[Bar(label="up", value=0.5), Bar(label="down", value=-0.5)]))
    up, down = of_class(plot, "bar")
    assert float(up.get("width")) == pytest.approx(float(down.get("width")))
    assert float(down.get("x")) + float(down.get("width")) == pytest.approx(float(up.get("x")))


def test_scatter_joins_the_points_of_a_group_and_draws_both_intervals():
    estimate = Estimate(value=1.0, low=0.5, high=1.5)
    points = [ScatterPoint(label=str(i), x=estimate, y=estimate, group="g") for i in range(2)]
    plot = figures.scatter(Scatter(points=points, x_label="L0", y_label="explained variance", joined=True))
    assert len(of_class(plot, "whisker")) == 4
    assert len([p for p in of_class(plot, "line") if p.tag == "path"]) == 1


@pytest.mark.parametrize(
    "panel",
    [
        Intervals(title=HOSTILE, rows=[]),
        Intervals(
            title=HOSTILE, rows=[IntervalRow(label=HOSTILE, estimate=Estimate(value=1.0), points=[(HOSTILE, 1.0)])]
        ),
        HeatMap(title=HOSTILE, rows=[], columns=[], values=[]),
        Lines(title=HOSTILE, series=[], x_label=HOSTILE, y_label="&"),
        Scatter(title=HOSTILE, points=[], x_label=HOSTILE, y_label="&"),
        Bars(title=HOSTILE, bars=[Bar(label=HOSTILE, value=1.0)]),
    ],
)
def test_every_figure_is_an_image_with_an_escaped_alternative(panel):
    markup = figures.draw(panel)
    root = ET.fromstring(markup)
    assert root.get("role") == "img"
    assert root.get("aria-label") == root[0].text == HOSTILE
    assert "<script" not in markup
    assert "nan" not in markup


def test_a_figure_has_its_numbers_as_a_table():
    row = IntervalRow(label="trained", estimate=Estimate(value=0.77, low=0.6, high=0.95), bar=0.5)
    table = figures.as_table(Intervals(rows=[row], references=[Reference(label="chance", value=0.3)]))
    assert table.rows == [["trained", row.estimate, 0.5], ["chance", 0.3, None]]
    lines = Lines(series=[Series(label="a", points=[(0, 1)])], x_label="x", y_label="y")
    assert figures.as_table(lines).columns[2] == panels.Column(label="y", format="number")
