"""The SAEs that a check trains by the recipe that is claimed of imported ones: siblings and control of the claim.

Light: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from husai_core.kinds.kind import Child, Done, From
from husai_core.saes.recipe import SAERecipe

NAME = "retrained"
FIRST_SEED = 1000
"""Far from the seeds that people give their own SAEs, which must not come again."""
LEAST, BESIDE_ONE = 3, 4
"""How many are trained: as many as there are imported SAEs, but at least so many; and beside a single one."""


def recipe_of(said: SAERecipe | None, core: Done | None) -> SAERecipe | None:
    """The recipe of imported SAEs, if it is known: what their user says, else what benchmark.core read of them."""
    claimed = core.result.get("claimed_recipe") if core and core.result else None
    return said or (SAERecipe.model_validate(claimed) if claimed else None)


def child(recipe: SAERecipe, imported: int, count: int | None, rows: Sequence[str | From]) -> Child:
    """The training; `count` SAEs, or as many as suit the number of `imported` ones."""
    count = count or (BESIDE_ONE if imported == 1 else max(LEAST, imported))
    whole = recipe.model_copy(update={"measure_half": True}).model_dump(mode="json")
    seeds = list(range(FIRST_SEED, FIRST_SEED + count))
    return Child(NAME, "train.sae", {"recipe": whole, "seeds": seeds}, {"activations": rows})


def inputs(done: Mapping[str, Done]) -> dict[str, list[str | From]]:
    """What a stress binds of them; nothing where there are none."""
    trained = NAME in done and done[NAME].state == "succeeded"
    return {NAME: [From(NAME, "saes")]} if trained else {}
