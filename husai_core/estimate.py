"""The one shape in which a statistic with its uncertainty is reported."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Estimate(BaseModel):
    """A value with its confidence interval. `low` and `high` are None where the interval is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float | None = Field(description="point estimate; None when it cannot be computed")
    low: float | None = Field(default=None, description="lower end of the two-sided interval")
    high: float | None = Field(default=None, description="upper end of the two-sided interval")
    n: int = Field(default=0, ge=0, description="number of independent units, normally seeds")
    unit: str = Field(default="seed", description="what was resampled")
    confidence: float = Field(default=0.95, gt=0, lt=1)
    method: str = Field(default="", description="how the interval was made")

    @model_validator(mode="after")
    def _ordered(self) -> Estimate:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("the interval's low lies above its high")
        return self
