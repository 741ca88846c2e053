"""What a shift of the text costs SAEs on a language model: the same SAEs on other texts than they were trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import panels
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Artifact
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import same_rows, stress_panels, work
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.kind import Facts, Work
from husai_core.stability.result_tables import RANGES

if TYPE_CHECKING:
    from husai_core.activations.store import Activations
    from husai_core.saes.evaluate import Figures
    from husai_core.saes.sae import SAE
    from husai_core.stability.halves import Doubled, Measured
    from husai_core.stability.intervals import Statistic
    from husai_core.stability.seed_group import SeedGroup

MEASURED = {"explained_variance": "lower_explained_variance", "l0": "l0", "dead_fraction": "dead_fraction"}
"""Statistics, and the figures of single SAEs whose means they are."""
STATISTICS = {
    **{f"random_explained_variance_{domain}": ranges.EXPLAINED_VARIANCE for domain in ("id", "ood")},
    "random_explained_variance_drop": ranges.UNBOUNDED,
    **{f"l0_{domain}": (0.0, inf) for domain in ("id", "ood")},
    **{f"dead_fraction_{domain}": ranges.SHARE for domain in ("id", "ood")},
}
"""What a release policy can read besides the figures that every shift has."""


class Text(BaseResult):
    """The SAEs on the held-out rows of one text, mean over seeds."""

    digest: str = Field(description="of the activations")
    rows: int = Field(description="held-out rows")
    explained_variance: list[float] = Field(description="per seed, the lower with and without rows of outlying norm")
    l0: float
    dead_fraction: float
    random_explained_variance: float = Field(description="of random SAEs that are as sparse")


def check(trained: Mapping[str, Any], shifted: Sequence[Mapping[str, Any]]) -> None:
    """Refuse shifted activations, by their `cfg.json`, that are of another model or hook.

    Raises:
        UserError: what does not fit.
    """
    for place, cfg in enumerate(shifted):
        if "source" in cfg and "source" in trained:
            facts = ("source", "model_digest", "hook_name", "position")
            same_rows.check_same(f"shifted number {place}", cfg, trained, facts)


def measure(group: SeedGroup, trained: Artifact, shifted: Sequence[Artifact]) -> tuple[Measured, list[Text]]:
    """Figures on the text that the SAEs were trained on (`id`) and on the others, the worst of which counts (`ood`).

    Raises:
        UserError: a text is read by another model or at another hook.
    """
    from husai_core.activations.store import load
    from husai_core.stability import nulls
    from husai_core.stability.halves import Measured

    artifacts = [trained, *shifted]
    cfgs = [json.loads((artifact.path / "cfg.json").read_bytes()) for artifact in artifacts]
    check(cfgs[0], cfgs[1:])
    stored = [load(artifact.path) for artifact in artifacts]
    random = nulls.random_saes(group.recipe, stored[0].part("train")[:], group.seeds)
    saes = {"": group.saes, "half": group.halves, "random": random}
    figures = {name: [_figures(members, rows) for rows in stored] for name, members in saes.items()}
    measured = Measured()
    for name in MEASURED:
        _add(measured, name, [_over_seeds(name, *both) for both in zip(figures[""], figures["half"], strict=True)])
    _add(
        measured,
        "random_explained_variance",
        [_over_seeds("explained_variance", of_random, []) for of_random in figures["random"]],
    )
    texts = [
        _text(artifact.digest, rows, of_saes, of_random)
        for artifact, rows, of_saes, of_random in zip(artifacts, stored, figures[""], figures["random"], strict=True)
    ]
    return measured, texts


def _figures(saes: Sequence[SAE], rows: Activations) -> list[Figures]:
    from husai_core.saes.evaluate import evaluate_all

    return evaluate_all(saes, rows.part("test")) if saes else []


def _over_seeds(name: str, whole: Sequence[Figures], half: Sequence[Figures]) -> Doubled[Statistic]:
    from husai_core.stability.halves import Doubled
    from husai_core.stability.intervals import seed_mean

    means = [seed_mean([getattr(figures, MEASURED[name]) for figures in group]) for group in (whole, half) if group]
    return Doubled(*means)


def _add(measured: Measured, name: str, texts: Sequence[Doubled[Statistic]]) -> None:
    """A figure on the first text, the worst of the others, and the largest loss."""
    from husai_core.stability.halves import plain

    inside, *outside = (plain(text) for text in texts)
    values = RANGES[name.removeprefix("random_")]
    measured.add(f"{name}_id", inside, values)
    if name.endswith("explained_variance"):
        measured.add_smallest(f"{name}_ood", outside, values)
        measured.add_largest(f"{name}_drop", [inside.minus(text) for text in outside], (-inf, inf))
    else:
        measured.add_largest(f"{name}_ood", outside, values)


def _text(digest: str, rows: Activations, saes: Sequence[Figures], random: Sequence[Figures]) -> Text:
    def mean(figures: Sequence[Figures], name: str) -> float:
        return sum(float(getattr(figure, name)) for figure in figures) / len(figures)

    return Text(
        digest=digest,
        rows=rows.part("test").shape[0],
        explained_variance=[figures.lower_explained_variance for figures in saes],
        l0=mean(saes, "l0"),
        dead_fraction=mean(saes, "dead_fraction"),
        random_explained_variance=mean(random, "lower_explained_variance"),
    )


def estimate(siblings: work.Siblings, facts: Facts) -> Work:
    """The SAEs, their halves and random SAEs on the held-out rows of every text."""
    trained = work.first(facts, "activations")
    test = sum(work.split_rows(cfg, "test") for cfg in (trained, *facts["shifted"]))
    cost = siblings.measured(2 + siblings.halves, test)
    base = siblings.rows_bytes(work.split_rows(trained, "train"))
    return cost.work(work.result_bytes(siblings.seeds), base=base)


def present(result: Evidence, texts: Sequence[Text], words: Callable[[str], tuple[str, str]]) -> list[panels.AnyPanel]:
    """What other texts cost, and every text; `words` names the statistics."""
    drop, random = (result.statistics.get(f"{name}explained_variance_drop") for name in ("", "random_"))
    text = (
        "From held-out rows of the text that the SAEs were trained on to the text that they explain worst, the drop of "
        f"explained variance is {common.interval(drop)}; of random SAEs that are as sparse it is "
        f"{common.interval(random)}."
    )
    figures = [
        ("drop of explained variance", "explained_variance_drop"),
        ("... of random SAEs", "random_explained_variance_drop"),
        ("explained variance, worst text", "explained_variance_ood"),
    ]
    return [
        stress_panels.headline(result, text, figures),
        _drops(result),
        _table(texts),
        *stress_panels.changes(result, ("explained_variance_drop", "explained_variance_ood"), words),
        stress_panels.statistics_table(result, words),
    ]


def _drops(result: Evidence) -> panels.Intervals:
    rows = [
        row
        for label, name in (("SAEs", ""), ("random SAEs", "random_"))
        for row in common.interval_row(label, result.statistics.get(f"{name}explained_variance_drop"))
    ]
    zero = [panels.Reference(label="no loss", value=0.0)]
    return panels.Intervals(
        title="What the worst shift costs", rows=rows, references=zero, x_label="drop of explained variance"
    )


def _table(texts: Sequence[Text]) -> panels.Table:
    names = ["trained on", *(f"shifted {place}" for place in range(len(texts) - 1))]
    rows: list[list[panels.Cell]] = [
        [
            name,
            text.digest[:12],
            text.rows,
            sum(text.explained_variance) / len(text.explained_variance),
            text.random_explained_variance,
            text.l0,
            text.dead_fraction,
        ]
        for name, text in zip(names, texts, strict=True)
    ]
    columns = [
        panels.Column(label="text"),
        panels.Column(label="activations"),
        panels.Column(label="rows", format="integer"),
        panels.Column(label="EV", format="number", digits=4),
        panels.Column(label="EV random", format="number", digits=4),
        panels.Column(label="L0", format="number", digits=1),
        panels.Column(label="dead", format="share"),
    ]
    note = (
        "On the held-out rows of every text, mean over seeds. EV: explained variance, the lower with and without rows "
        "of outlying norm; EV random: that of random SAEs that are as sparse; L0: active latents per row; dead: share "
        "of latents that never fire there. Words in another order may cost little: it does not see everything."
    )
    return panels.Table(title="Every text", note=note, columns=columns, rows=rows)
