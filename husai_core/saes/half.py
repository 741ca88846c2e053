"""What a training would be with half the tokens: a copy that leaves the main run and comes to rest there.

The learning rate is constant until the copy leaves, so the copy is the SAE that `SAERecipe.halved` trains, for the
steps of its falling rate alone. The main run does not notice it.
"""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor

from husai_core.saes.architectures.base import StackedSAEs
from husai_core.saes.objective import Objective


class HalfRun:
    """The copy of a stack of SAEs."""

    def __init__(self, main: StackedSAEs) -> None:
        self.main, self.measured = main, main.recipe.why_no_half is None
        self.copy: StackedSAEs | None = None
        """None before it leaves, and where the recipe has no half."""

    def advance(self, x: Tensor, y: Tensor, objective: Objective | None) -> None:
        """Take the step that the main run takes next, on the same rows, if the copy is on its way."""
        recipe = self.main.recipe
        if self.measured and self.main.step == recipe.half_from:
            self._leave()
        if self.copy is not None and self.copy.step < recipe.half_steps:
            self.copy.advance(x, y, objective)
        self._rest()

    def enter(self) -> None:
        """Make the copy that a main run resumed at this step had, with the main run's values in place of its own."""
        self.copy, step = None, self.main.step
        if self.measured and step > self.main.recipe.half_from:
            self._leave().step = min(step, self.main.recipe.half_steps)
        self._rest()

    def state(self) -> dict[str, Tensor]:
        """Everything that the copy's next step depends on, by name; the tensors are the live ones."""
        return {} if self.copy is None else self.copy.state()

    def _leave(self) -> StackedSAEs:
        """The copy as it leaves: the main run with the rest of another schedule."""
        kernels = self.main.kernels
        self.copy = deepcopy(self.main, {id(kernels): kernels})
        self.copy.recipe, self.copy.columns = self.main.recipe.halved, None
        return self.copy

    def _rest(self) -> None:
        """Let the optimiser's memory go once the copy is done."""
        if self.copy is not None and self.copy.step == self.main.recipe.half_steps:
            self.copy.moments = {}
