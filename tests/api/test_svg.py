import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import svg
from api.svg import Axis, Row, Series


def tree(markup: str) -> ET.Element:
    return ET.fromstring(markup)


def of_class(markup: str, name: str) -> list[ET.Element]:
    return [element for element in tree(markup).iter() if name in element.get("class", "").split()]


def texts(markup: str) -> list[str]:
    return [element.text or "" for element in tree(markup).iter("text")]


def gauge(value=0.4, low=0.3, high=0.5, threshold=0.05, op=">=", bound="low") -> str:
    return svg.gauge(value, low, high, threshold, op=op, bound=bound, verdict="pass", title="t")


def test_axis_maps_its_ends_and_clamps_beyond_them():
    axis = Axis(0, 10, 100, 300)
    assert [axis(v) for v in (0, 5, 10, -3, 99)] == [100, 200, 300, 100, 300]


def test_a_logarithmic_axis_puts_the_geometric_mean_in_the_middle():
    axis = Axis(0.01, 100, 0, 400, log=True)
    assert axis(1) == pytest.approx(200)
    assert axis(10) == pytest.approx(300)
    assert axis(0) == 0


def test_ticks_are_round_and_inside():
    assert Axis(-0.03, 1.02, 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis(50, 20_000, 0, 1, log=True).ticks() == [100, 1000, 10_000]
    assert Axis(0.2, 0.9, 0, 1, log=True).ticks() == [0.2, 0.5]


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=8), st.booleans())
def test_an_axis_around_any_values_is_usable(values, log):
    axis = Axis.around(values, 0, 100, log)
    assert axis.low < axis.high
    assert all(0 <= axis(v) <= 100 for v in values)
    assert len(axis.ticks()) < 40


def test_axis_around_ignores_what_cannot_be_shown():
    axis = Axis.around([math.nan, math.inf, -5, 0, 1, 100], 0, 1, log=True)
    assert 0 < axis.low < 1
    assert 100 < axis.high < 200


def test_gauge_places_threshold_value_and_ends_to_scale():
    (threshold,), (dot,) = of_class(gauge(), "threshold"), of_class(gauge(), "dot")
    (bar,) = [line for line in of_class(gauge(), "whisker") if line.get("y1") == line.get("y2")]
    at = {
        0.05: float(threshold.get("x1")),
        0.4: float(dot.get("cx")),
        0.3: float(bar.get("x1")),
        0.5: float(bar.get("x2")),
    }
    slope = (at[0.5] - at[0.05]) / 0.45
    for value, x in at.items():
        assert x == pytest.approx(at[0.05] + slope * (value - 0.05), abs=0.02)


@pytest.mark.parametrize(("op", "bound"), [(">=", "low"), ("<=", "high")])
def test_gauge_shades_the_side_that_passes_and_marks_the_judged_end(op, bound):
    plot = gauge(op=op, bound=bound)
    (side,), (line,), (judged,) = (of_class(plot, name) for name in ("pass-side", "threshold", "judged"))
    left, width, at = float(side.get("x")), float(side.get("width")), float(line.get("x1"))
    assert (left if op == ">=" else left + width) == pytest.approx(at, abs=0.02)
    (bar,) = [w for w in of_class(plot, "whisker") if w.get("y1") == w.get("y2")]
    end = float(bar.get("x1" if bound == "low" else "x2"))
    assert float(judged.get("d")[1:].split(" ")[0]) + 5 == pytest.approx(end, abs=0.02)


def test_gauge_without_a_figure_says_so_and_keeps_the_threshold():
    plot = gauge(value=None, low=None, high=None)
    assert "no figure" in texts(plot)
    assert len(of_class(plot, "threshold")) == 1
    assert not of_class(plot, "dot")


def test_heatmap_shades_between_its_ends_and_prints_values():
    plot = svg.heatmap([[1, 0.2, 0.6], [0.2, 1, 1.0], [0.6, 1.0, None]], ["0", "1", "2"], "t", low=0.2, high=1)
    cells = [c for c in of_class(plot, "heat") if c.get("height") != "8"]
    shades = [float(c.get("fill-opacity")) for c in cells]
    assert shades == pytest.approx([0.07, 0.535, 0.07, 1.0, 0.535, 1.0], abs=0.006)
    assert texts(plot).count("0.60") == 2
    assert len(of_class(plot, "blank")) == 3


def test_dots_draw_every_unit_and_keep_values_as_tooltips():
    points = [("seeds 0 and 1", 0.70), ("seeds 0 and 2", 0.70), ("seeds 1 and 2", 0.9)]
    plot = svg.dots([Row("trained", 0.77, 0.6, 0.95, points)], "t", references=[(0.3, "chance")])
    units = of_class(plot, "unit")
    assert len({(u.get("cx"), u.get("cy")) for u in units}) == 3
    assert [u[0].text for u in units] == ["seeds 0 and 1: 0.7000", "seeds 0 and 2: 0.7000", "seeds 1 and 2: 0.9000"]
    (reference,) = of_class(plot, "reference")
    assert float(reference.get("x1")) < min(float(u.get("cx")) for u in units)


def test_an_unknown_interval_draws_no_whisker():
    assert not of_class(svg.dots([Row("a", 0.5)], "t"), "whisker")


def test_lines_leave_out_what_a_logarithmic_axis_cannot_show():
    series = [Series("a", [(0, 1.0), (10, 1.0), (100, 0.0), (1000, 0.1)])]
    plot = svg.lines(series, "t", x_label="x", y_label="y", log_x=True, log_y=True)
    (path,) = [p for p in of_class(plot, "line") if p.tag == "path"]
    assert path.get("d").count("L") == 1


def test_series_of_one_label_share_a_legend_entry():
    series = [Series("seed", [(0, i), (1, 2)]) for i in range(5)]
    assert texts(svg.lines(series, "t", x_label="x", y_label="y")).count("seed") == 1


def test_bars_start_at_zero_also_for_negative_values():
    plot = svg.bars([("up", 0.5, "s0"), ("down", -0.5, "s0")], "t")
    up, down = of_class(plot, "bar")
    assert float(up.get("width")) == pytest.approx(float(down.get("width")))
    assert float(down.get("x")) + float(down.get("width")) == pytest.approx(float(up.get("x")))


@pytest.mark.parametrize(
    "plot",
    [
        svg.dots([], "<b>&\"'"),
        svg.heatmap([], [], "<b>&\"'"),
        svg.lines([], "<b>&\"'", x_label="<i>", y_label="&"),
        svg.bars([("<script>", 1.0, "s0")], "<b>&\"'"),
        svg.dots([Row("<script>", 1.0, points=[("</title>", 1.0)])], "<b>&\"'"),
    ],
)
def test_every_figure_is_an_image_with_an_escaped_alternative(plot):
    root = tree(plot)
    assert root.get("role") == "img"
    assert root.get("aria-label") == root[0].text == "<b>&\"'"
    assert "<script" not in plot
    assert "nan" not in plot


def test_numbers_for_people():
    assert svg.number(-0.0301) == "−0.030"
    assert svg.number(-0.0001) == "0.000"
    assert [svg.number(v) for v in (None, math.nan, math.inf)] == ["–", "–", "–"]
    shown = [svg.compact(v) for v in (2e6, 1500, 0, 0.05, -0.25, 1e-5, 999_999)]
    assert shown == ["2 M", "1.5 k", "0", "0.05", "−0.25", "1e−5", "1 M"]
