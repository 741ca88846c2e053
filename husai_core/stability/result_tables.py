"""What stress results show beside their statistics: tables per seed and matrices per pair. Light: no torch."""

from __future__ import annotations

from math import inf

from pydantic import Field

from husai_core.evidence import BaseResult

RANGES = {
    "explained_variance": (-inf, 1.0),
    "explained_variance_all_rows": (-inf, 1.0),
    "explained_variance_without_outliers": (-inf, 1.0),
    "normalised_mse": (0.0, inf),
    "l0": (0.0, inf),
    "dead_fraction": (0.0, 1.0),
    "drift_from_init": (0.0, 1.0),
}
"""The values that each figure of an SAE can take."""
Matrix = list[list[float | None]]
"""One value per pair of seeds, rows and columns in the order of the seeds; None where it cannot be computed."""


class Member(BaseResult):
    """One SAE or transcoder on held-out rows."""

    seed: int
    explained_variance: float
    explained_variance_without_outliers: float | None = Field(
        None, description="without rows of more than 10 times the median norm; unknown in earlier results"
    )
    outlier_fraction: float | None = Field(None, description="share of rows of more than 10 times the median norm")
    normalised_mse: float = Field(description="sum of squared errors / sum of squares")
    l0: float = Field(description="non-zero latents per row")
    dead_fraction: float = Field(description="share of latents that are zero on all held-out rows")
    drift_from_init: float | None = Field(
        description="mean |cosine| between final and initial decoder rows; 1 is no change; unknown if imported"
    )
    converged: bool | None = Field(description="unknown if imported")

    @property
    def lower_explained_variance(self) -> float:
        """The lower of explained variance over all rows and without outliers, which alone can hold nearly all of it."""
        usual = self.explained_variance_without_outliers
        return self.explained_variance if usual is None else min(self.explained_variance, usual)
