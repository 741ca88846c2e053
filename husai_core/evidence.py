"""What a job results in: figures, and the figures about an SAE that a release policy can read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from husai_core.estimate import Estimate

KeyFigures = dict[str, str | bool | int | float | None]
"""A few figures of a result by name."""
Provenance = Literal["trained here", "attested", "claimed", "unknown"]
"""What shows how an SAE was trained, from the strongest to the weakest: its job is in this store; a signed manifest
that verifies; its user's word; nothing."""
Answer = Literal["yes", "no", "unknown"]
"""Of an interval: wholly inside a margin, wholly outside, or neither."""


def weakest(provenances: Iterable[Provenance]) -> Provenance:
    """The provenance that holds for all of some SAEs.

    Raises:
        ValueError: there are none.
    """
    return max(provenances, key=get_args(Provenance).index)


class BaseResult(BaseModel):
    """Base of every job result: deterministic figures only; times and hosts belong in the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def key_figures(self) -> KeyFigures:
        """The few figures by which a study judges this result and which it repeats in its own."""
        return {}


class RecipeFigure(BaseResult):
    """A figure of imported SAEs beside that of SAEs trained here by the recipe that is claimed of them."""

    imported: Estimate
    retrained: Estimate
    difference: Estimate = Field(description="imported less retrained")
    margin: float = Field(description="differences inside ± this count as none")
    agrees: Answer = Field(description="whether the whole interval of the difference lies inside the margin")


class RecipeCheck(BaseResult):
    """Whether a claimed recipe makes such SAEs as it is claimed of."""

    agrees: Answer = Field(description="`yes` if every figure agrees, `no` if one does not")
    figures: dict[str, RecipeFigure]
    retrained: list[str] = Field(description="digests of the SAEs that were trained here by the claimed recipe")
    rows: int = Field(description="held-out rows on which they were compared")


class Evidence(BaseResult):
    """A result that a release policy can read: figures about named SAE checkpoints."""

    subject: list[str] = Field(description="digests of the SAE checkpoints that the figures are about")
    converged: bool = Field(description="every training run behind the figures had converged")
    imported: bool = Field(default=False, description="how the SAEs were trained is known from their user only")
    unconverged: list[str] = Field(default=[], description="the training runs that had not, by group and seed")
    siblings_left_out: int | None = Field(
        default=None,
        description="seeds of the same trainings that are not among the SAEs; unknown where these do not say",
    )
    leaks_label: bool = Field(description="the input of the model, where it was read or trained, shows the answer")
    statistics: dict[str, Estimate] = Field(description="the figures that rules may name")
    changes: dict[str, Estimate] = Field(
        default={},
        description="by statistic, its paired change over the last doubling of training: whole budget minus half, in "
        "units of the statistic; none for a statistic that no training done here stands behind",
    )
    provenance: Provenance | None = Field(
        default=None, description="the weakest of the SAEs'; absent from earlier results, whose `imported` tells it"
    )
    control_rows: int | None = Field(
        default=None, description="rows that the controls were trained on; none, or an earlier result"
    )
    retrained: bool = Field(default=False, description="SAEs behind the figures were trained here by a claimed recipe")
    recipe_check: RecipeCheck | None = Field(
        default=None,
        description="imported SAEs beside such as were trained here by the claimed recipe; none where there are none, "
        "and in earlier results",
    )

    @property
    def origin(self) -> Provenance:
        """`provenance`, also of earlier results: of imported SAEs these knew what the user said."""
        return self.provenance or ("claimed" if self.imported else "trained here")

    @property
    def key_figures(self) -> KeyFigures:
        """Whether the trainings had converged; the figures are in `statistics`."""
        return {"converged": self.converged}
