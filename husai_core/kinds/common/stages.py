"""The stages of a study: how each ended, with its key figures, as data and as a table. Light: no torch."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.kinds.common import panels as common
from husai_core.release.judge import RuleOutcome

ANSWERS = {
    "pass": "Release: every rule of the gate is met",
    "fail": "Do not release: the evidence is against it",
    "inconclusive": "Inconclusive: some rules of the gate are undecided",
}
"""What a verdict means for whoever wants to release the SAE."""


class Stage(BaseModel):
    """How one stage ended, with its key figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    state: str
    figures: dict[str, float | bool | str | None]
    statistics: dict[str, Estimate] = Field(default_factory=dict)


def stage_of(name: str, kind: str, state: str, result: BaseResult) -> Stage:
    """The stage that ended with this result."""
    statistics = result.statistics if isinstance(result, Evidence) else {}
    return Stage(name=name, kind=kind, state=state, figures=result.key_figures, statistics=statistics)


def stages_table(stages: Sequence[Stage], rules: Sequence[RuleOutcome] = ()) -> panels.Table:
    """One stage a row, with its key figures; of evidence, those that the rules read."""
    rows: list[list[panels.Cell]] = []
    for stage in stages:
        figures = stage.figures
        if stage.statistics and rules:
            names = [rule.statistic for rule in rules if rule.evidence == stage.kind]
            figures = {name: stage.statistics[name].value for name in names if name and name in stage.statistics}
        known = [(common.label(name), value) for name, value in figures.items() if value is not None]
        rows.append([stage.name, stage.kind, stage.state, ", ".join(f"{name} {_word(value)}" for name, value in known)])
    columns = [panels.Column(label=label) for label in ("stage", "kind", "state", "key figures")]
    return panels.Table(title="Stages", columns=columns, rows=rows)


def _word(value: str | bool | float) -> str:
    """A figure of a stage in few characters."""
    return common.yes(value) if isinstance(value, bool) else value if isinstance(value, str) else common.number(value)
