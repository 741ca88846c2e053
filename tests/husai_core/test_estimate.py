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
