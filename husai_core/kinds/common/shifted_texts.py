"""What a shift of the text costs SAEs on a language model: the same SAEs on other texts than they were trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import panels
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import panels as common
from husai_core.kinds.common import same_rows, shifted_network, stress_panels, work
from husai_core.kinds.common import statistics as ranges
from husai_core.kinds.kind import Facts, Work
from husai_core.stability.result_tables import RANGES

if TYPE_CHECKING:
    from husai_core.activations.store import Activations
    from husai_core.saes.evaluate import Figures
    from husai_core.saes.sae import SAE
    from husai_core.stability.halves import Doubled, Figure, Measured
    from husai_core.stability.intervals import Statistic
    from husai_core.stability.seed_group import SeedGroup

MEASURED = {"explained_variance": "lower_explained_variance", "l0": "l0", "dead_fraction": "dead_fraction"}
"""Statistics, and the figures of single SAEs whose means they are."""
STATISTICS = {
    **{f"random_explained_variance_{domain}": ranges.EXPLAINED_VARIANCE for domain in ("id", "ood")},
    "random_explained_variance_drop": ranges.UNBOUNDED,
    **{f"l0_{domain}": (0.0, inf) for domain in ("id", "ood")},
    **{f"dead_fraction_{domain}": ranges.SHARE for domain in ("id", "ood")},
    **shifted_network.STATISTICS,
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
    inside: shifted_network.InsideText | None = Field(None, description="unknown without the model")


def check(trained: Mapping[str, Any], shifted: Sequence[Mapping[str, Any]]) -> None:
    """Refuse shifted activations, by their `cfg.json`, that are of another model or hook.

    Raises:
        UserError: what does not fit.
    """
    for place, cfg in enumerate(shifted):
        if "source" in cfg and "source" in trained:
            facts = ("source", "model_digest", "hook_name", "position")
            same_rows.check_same(f"shifted number {place}", cfg, trained, facts)


def measure(
    group: SeedGroup, inputs: Inputs, model: str | None, settings: shifted_network.Settings, job: Job
) -> tuple[Measured, list[Text]]:
    """Figures on the text that the SAEs were trained on (`id`) and on the others, the worst of which counts (`ood`).

    Raises:
        UserError: a text is read by another model or at another hook.
    """
    from husai_core.activations.store import load
    from husai_core.stability import nulls
    from husai_core.stability.halves import Measured, plain

    artifacts = [inputs.one("activations"), *inputs.many("shifted")]
    cfgs = [json.loads((artifact.path / "cfg.json").read_bytes()) for artifact in artifacts]
    check(cfgs[0], cfgs[1:])
    stored = [load(artifact.path) for artifact in artifacts]
    random = nulls.random_saes(group.recipe, stored[0].part("train")[:], group.seeds)
    saes = {"saes": group.saes, "halves": group.halves, "random": random}
    figures = {name: [_figures(members, rows) for rows in stored] for name, members in saes.items()}
    measured = Measured()
    for name in MEASURED:
        both = zip(figures["saes"], figures["halves"], strict=True)
        _add(measured, name, [plain(_over_seeds(name, *of_text)) for of_text in both])
    of_random = [plain(_over_seeds("explained_variance", of_text, [])) for of_text in figures["random"]]
    _add(measured, "random_explained_variance", of_random)
    inside: list[shifted_network.InsideText] = []
    if model or inputs.many("transformer"):
        more, inside = shifted_network.measure(model, inputs, stored, saes, settings, job)
        measured.extend(more)
    texts = [
        _text(artifact.digest, rows, figures["saes"][at], figures["random"][at], inside[at] if inside else None)
        for at, (artifact, rows) in enumerate(zip(artifacts, stored, strict=True))
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


def _add(measured: Measured, name: str, texts: Sequence[Figure]) -> None:
    """A figure on the first text, the worst of the others, and the largest loss."""
    inside, *outside = texts
    values = RANGES[name.removeprefix("random_")]
    measured.add(f"{name}_id", inside, values)
    if name.endswith("explained_variance"):
        measured.add_smallest(f"{name}_ood", outside, values)
        measured.add_largest(f"{name}_drop", [inside.minus(text) for text in outside], (-inf, inf))
    else:
        measured.add_largest(f"{name}_ood", outside, values)


def _text(
    digest: str,
    rows: Activations,
    saes: Sequence[Figures],
    random: Sequence[Figures],
    inside: shifted_network.InsideText | None,
) -> Text:
    def mean(figures: Sequence[Figures], name: str) -> float:
        return sum(float(getattr(figure, name)) for figure in figures) / len(figures)

    return Text(
        digest=digest,
        rows=rows.part("test").shape[0],
        explained_variance=[figures.lower_explained_variance for figures in saes],
        l0=mean(saes, "l0"),
        dead_fraction=mean(saes, "dead_fraction"),
        random_explained_variance=mean(random, "lower_explained_variance"),
        inside=inside,
    )


def estimate(siblings: work.Siblings, model: str | None, facts: Facts, settings: shifted_network.Settings) -> Work:
    """The SAEs, their halves and random SAEs on the held-out rows of every text, and inside the model."""
    trained = work.first(facts, "activations")
    test = sum(work.split_rows(cfg, "test") for cfg in (trained, *facts["shifted"]))
    groups = 1 + siblings.retrained
    cost = siblings.measured(2 * groups + siblings.halves, test) + siblings.recipe_check(test)
    if model or facts.get("transformer"):
        inside = shifted_network.estimate(siblings, model, facts, settings)
        cost += work.Cost(groups * inside.units, inside.memory)
    base = siblings.rows_bytes(work.split_rows(trained, "train"))
    return cost.work(work.result_bytes(siblings.seeds), base=base)


NAMES = {
    "explained_variance": "explained variance",
    "l0": "L0",
    "dead_fraction": "dead latents",
    "probe_accuracy": "probe on latents",
    "kl_recovered": "KL recovered",
}
ENDS = {"id": "text trained on", "ood": "worst text", "drop": "drop", "excess": "drop beyond raw probe"}
CHANGES = ("explained_variance_drop", "explained_variance_ood", "probe_accuracy_drop_excess", "kl_recovered_drop")


def words(name: str) -> tuple[str, str]:
    """A statistic's measure and figure in words."""
    plain_name = name.removeprefix("random_")
    measure = next((known for known in NAMES if plain_name.startswith(known)), plain_name)
    of_random = " of random SAEs" if plain_name != name else ""
    return NAMES.get(measure, measure.replace("_", " ")) + of_random, ENDS.get(name.rpartition("_")[2], "")


def present(result: Evidence, texts: Sequence[Text]) -> list[panels.AnyPanel]:
    """What other texts cost, and every text."""
    drop, random = (result.statistics.get(f"{name}explained_variance_drop") for name in ("", "random_"))
    text = (
        "From held-out rows of the text that the SAEs were trained on to the text that they explain worst, the drop of "
        f"explained variance is {common.interval(drop)}; of random SAEs that are as sparse it is "
        f"{common.interval(random)}.{_inside_sentence(result)}"
    )
    figures = [
        ("drop of explained variance", "explained_variance_drop"),
        ("drop of probes beyond the raw probe", "probe_accuracy_drop_excess"),
        ("drop of KL recovered", "kl_recovered_drop"),
        ("explained variance, worst text", "explained_variance_ood"),
    ]
    return [
        stress_panels.headline(result, text, [figure for figure in figures if figure[1] in result.statistics]),
        *_drops(result),
        _table(texts),
        *_inside_table(texts),
        *stress_panels.changes(result, [name for name in CHANGES if name in result.statistics], words),
        stress_panels.statistics_table(result, words),
    ]


def _inside_sentence(result: Evidence) -> str:
    probes, kl = (result.statistics.get(name) for name in ("probe_accuracy_drop_excess", "kl_recovered_drop"))
    sentence = ""
    if probes:
        sentence += (
            f" Probes on the latents lose at most {common.interval(probes)} more accuracy than a probe on the raw "
            "activations."
        )
    if kl:
        sentence += f" Of the KL recovered at most {common.interval(kl)} is lost."
    return sentence


def _drops(result: Evidence) -> list[panels.AnyPanel]:
    """What the worst text costs, for every figure beside random SAEs."""
    titles = {
        "explained_variance_drop": "drop of explained variance",
        "probe_accuracy_drop_excess": "drop of accuracy of probes, beyond a probe on the raw activations",
        "kl_recovered_drop": "drop of KL recovered",
    }
    zero = [panels.Reference(label="no loss", value=0.0)]
    shown: list[panels.AnyPanel] = []
    for name, title in titles.items():
        rows = [
            row
            for label, prefix in (("SAEs", ""), ("random SAEs", "random_"))
            for row in common.interval_row(label, result.statistics.get(prefix + name))
        ]
        if rows:
            title_of_panel = f"The worst text: {title}"
            shown.append(panels.Intervals(title=title_of_panel, rows=rows, references=zero, x_label=title))
    return shown


def _names(texts: Sequence[Text]) -> list[str]:
    return ["trained on", *(f"shifted {place}" for place in range(len(texts) - 1))]


def _inside_table(texts: Sequence[Text]) -> list[panels.AnyPanel]:
    """What the SAEs keep of the model on every text."""
    rows: list[list[panels.Cell]] = [
        [
            name,
            sum(text.inside.probe_accuracy) / len(text.inside.probe_accuracy),
            text.inside.raw_probe_accuracy,
            text.inside.random_probe_accuracy,
            _mean(text.inside.kl_recovered),
            text.inside.random_kl_recovered,
        ]
        for name, text in zip(_names(texts), texts, strict=True)
        if text.inside
    ]
    labels = ("probe", "probe raw", "probe random", "KL rec.", "KL rec. random")
    columns = [
        panels.Column(label="text"),
        *(panels.Column(label=label, format="number", digits=3) for label in labels),
    ]
    note = (
        "Means over seeds. Probe: share of held-out rows, taken within each class first, of which a probe on the "
        "latents tells what kind of token comes next (more of the word, a word in lower case or with a capital, a "
        "number, punctuation, white space); it is fitted on the text that the SAEs were trained on. Raw: the same on "
        "the activations. KL rec.: share of the divergence from the model's predictions by zero ablation that the SAE "
        "avoids. Random: random SAEs that are as sparse."
    )
    return (
        [panels.Table(title="Inside the model, on every text", note=note, columns=columns, rows=rows)] if rows else []
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _table(texts: Sequence[Text]) -> panels.Table:
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
        for name, text in zip(_names(texts), texts, strict=True)
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
