"""The one shape in which a statistic with its uncertainty is reported."""

from __future__ import annotations

from math import inf

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

    def within(self, least: float = -inf, most: float = inf) -> Estimate:
        """The same figure with its interval cut to the range of values that the figure can take.

        An interval that is symmetric about a share near 0 or 1 may reach beyond them. Cutting off what is impossible
        costs no coverage; `method` says that it was done. The value always stays inside its interval.
        """
        if self.value is None or self.low is None or self.high is None:
            return self
        low, high = min(self.value, max(self.low, least)), max(self.value, min(self.high, most))
        if (low, high) == (self.low, self.high):
            return self
        limits = f"[{least:g}, {most:g}]"
        return self.model_copy(update={"low": low, "high": high, "method": f"{self.method}, cut to {limits}"})
