"""Whether a claimed recipe makes such SAEs as it is claimed of.

Of imported SAEs a rule with a margin reads figures that rest on trainings by their claimed recipe: controls, and what
the last doubling of the tokens changed. An understated recipe, say a quarter of the tokens, would give weak controls.
So SAEs are trained here by the claim and compared with the imported ones. As with settled figures, nothing counts as
alike because no difference was seen, only because one beyond the margin is excluded (Schuirmann 1987).
"""

from __future__ import annotations

from typing import NamedTuple

from husai_core.evidence import Answer, Evidence, RecipeFigure
from husai_core.release.policy import StatisticRule

FIGURES = {"explained_variance": "explained variance", "l0": "L0", "pwmcc": "overlap of seeds (PWMCC)"}
RETRAIN = (
    "check the SAEs with `husai check`, which trains such SAEs, or give the measurement SAEs that train.sae made by "
    "this recipe on the same rows (input retrained)"
)
TRUE_RECIPE = "name the recipe that made the SAEs (husai check: --recipe FILE), and the text that they were trained on"
MORE_SAES = "compare more SAEs: siblings of the imported ones, or more retrained ones (study.check: retrained_seeds)"


class Incomparable(NamedTuple):
    """Why trainings by a claimed recipe say nothing about the SAEs, and what would settle that."""

    reason: str
    settle: str


def answer(rule: StatisticRule, read: Evidence) -> Answer | None:
    """What the check of the claimed recipe says; None where a rule does not ask, or nothing is only claimed."""
    if rule.margin is None or read.origin not in ("claimed", "unknown"):
        return None
    return "unknown" if read.recipe_check is None else read.recipe_check.agrees


def why_not(rule: StatisticRule, read: Evidence) -> Incomparable | None:
    """What speaks against reading trainings by a claimed recipe; None where nothing does, or this is not asked."""
    agrees, check = answer(rule, read), read.recipe_check
    if agrees in (None, "yes"):
        return None
    if check is None:
        return Incomparable(
            "how the SAEs were trained is only claimed, and no SAEs that were trained here by the claimed recipe stand "
            "beside them",
            RETRAIN,
        )
    named = [_named(name, figure, agrees) for name, figure in check.figures.items() if figure.agrees == agrees]
    if agrees == "no":
        return Incomparable(
            f"the claimed recipe makes other SAEs here, so its controls are not comparable: {'; '.join(named)}",
            TRUE_RECIPE,
        )
    reason = "whether the claimed recipe makes such SAEs is unknown, and so whether its controls are comparable"
    return Incomparable(f"{reason}: {'; '.join(named)}", MORE_SAES)


def _named(name: str, figure: RecipeFigure, agrees: Answer) -> str:
    """A figure in which imported and retrained SAEs differ, or may differ."""
    said, difference = FIGURES.get(name, name), figure.difference
    beside = f"{said} {_value(figure.imported.value)} against {_value(figure.retrained.value)}"
    if difference.low is None or difference.high is None:
        return f"{beside}, a difference without an interval"
    perhaps = "perhaps " * (agrees == "unknown")
    interval = f"[{difference.low:.3f}, {difference.high:.3f}]"
    return f"{beside}, a difference of {interval}, {perhaps}more than ±{figure.margin:.3g}"


def _value(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
