import math

import pytest
from pydantic import ValidationError

from husai_core.estimate import Estimate


@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_figures_are_finite(field: str, number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Estimate.model_validate({"value": 0.5, field: number})


def test_an_interval_is_ordered() -> None:
    assert Estimate(value=0.5, low=0.4, high=0.4).low == 0.4
    assert Estimate(value=0.5, low=0.6).high is None
    with pytest.raises(ValidationError, match="low lies above"):
        Estimate(value=0.5, low=0.6, high=0.4)


@pytest.mark.parametrize(
    ("value", "low", "high", "cut"),
    [(0.98, 0.9, 1.06, (0.9, 1.0)), (0.01, -0.04, 0.06, (0.0, 0.06)), (0.5, 0.4, 0.6, (0.4, 0.6))],
)
def test_an_interval_is_cut_to_what_a_share_can_be(
    value: float, low: float, high: float, cut: tuple[float, float]
) -> None:
    estimate = Estimate(value=value, low=low, high=high, n=4, method="jackknife").within(0, 1)
    assert (estimate.value, estimate.low, estimate.high) == (value, *cut)
    assert ("cut to [0, 1]" in estimate.method) == (cut != (low, high))


def test_a_value_that_rounding_put_outside_stays_inside_its_interval() -> None:
    estimate = Estimate(value=1 + 1e-7, low=1.0, high=1.1).within(0, 1)
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= 1 + 1e-7 <= estimate.high
    assert Estimate(value=0.5).within(0, 1).low is None
