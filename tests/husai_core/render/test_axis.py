import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from husai_core.render.axis import Axis


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
    assert len(Axis(0.3, 0.9, 0, 1, log=True).ticks()) > 2


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
