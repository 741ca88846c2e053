"""What the specs of the stresses have in common: all train the recipe of the given SAEs anew. Light: no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from husai_core.kinds.kind import BaseSpec
from husai_core.saes.recipe import SAERecipe


class Spec(BaseSpec):
    """Base of a stress's spec."""

    recipe: SAERecipe | None = Field(
        None, description="how imported SAEs were trained, with the fields of train.sae's recipe; only for these"
    )

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.recipe:
            self.recipe.check_read([self.recipe.architecture])
        return self
