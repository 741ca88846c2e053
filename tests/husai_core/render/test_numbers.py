import math

import pytest

from husai_core.estimate import Estimate
from husai_core.render import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (-0.25, "−0.250"),
        (-0.0001, "−1.0e−4"),
        (0.0, "0.000"),
        (12, "12"),
        (12345.6, "12,346"),
        (-1e308, "−1e308"),
    ],
)
def test_a_figure_for_people(value, text):
    assert numbers.plain(value) == text


def test_a_signed_figure_has_the_same_minus_as_the_others():
    assert [numbers.signed(0.25), numbers.signed(-0.25), numbers.compact(-2e300)] == ["+0.25", "−0.25", "−2e300"]


def test_the_labels_of_an_axis_have_equal_decimals():
    assert numbers.ticks([0, 0.5, 0.55, 0.6]) == ["0", "0.50", "0.55", "0.60"]
    assert numbers.ticks([-1, 0, 1.5]) == ["−1.0", "0", "1.5"]
    assert numbers.ticks([0, 100_000, 200_000]) == ["0", "100 k", "200 k"]
    assert numbers.ticks([1e-5, 0.5]) == ["1e−5", "0.5"]
    assert numbers.ticks([]) == []


def test_fixed_decimals_never_say_minus_zero():
    assert numbers.number(-0.0001) == "0.000"


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (True, "number", "yes"),
        (0.257, "share", "25.7 %"),
        (1_234_567, "bytes", "1.23 MB"),
        (4.25, "seconds", "4.25 s"),
        (190, "seconds", "3 min 10 s"),
        (7500, "seconds", "2 h 5 min"),
        ("ab" * 32, "digest", "abababababab"),
        (15_000, "integer", "15,000"),
        (Estimate(value=0.5, low=0.4, high=0.6), "number", "0.500 [0.400, 0.600]"),
        (Estimate(value=0.5), "number", "0.500"),
        (Estimate(value=0.5, low=0.4, high=0.6), "share", "50.0 [40.0, 60.0] %"),
        (Estimate(value=None), "number", "–"),
    ],
)
def test_a_cell_is_written_in_its_columns_format(value, form, text):
    assert numbers.cell(value, form) == text


def test_whole_figures_with_whole_ends_have_no_decimals() -> None:
    assert numbers.interval(Estimate(value=16.0, low=16.0, high=16.0, n=3)) == "16 [16, 16]"
    assert numbers.interval(Estimate(value=1.0, low=1.0, high=1.0, n=3)) == "1.000 [1.000, 1.000]"
    assert numbers.interval(Estimate(value=16.0, low=15.5, high=16.5, n=3)) == "16.000 [15.500, 16.500]"
