"""Does a latent do in the network what its twins in other seeds do, sign kept?

Latents of every SAE are drawn by seed from all strata of frequencies, never by what comes out. A latent is ablated (its
own term is taken away on the rows on which it fires; the SAE's error stays, as in Marks et al. 2024, arXiv 2403.19647)
and steered (a multiple of its mean activation times its decoder row is added to all rows); the same is done with its
twin in every sibling, matched one to one by |cosine| (Paulo & Belrose 2025, arXiv 2501.16615), on the same rows. The
effect is how the logits change about their mean over the vocabulary. Its cosine with the twin's effect is taken over
all predictions at these rows and all tokens; the sign agreement is the share of the tokens that the latent changes most
on average that the twin changes to the same side; one that it does not change counts half.

Both stand beside those of two controls of the same norm on every row: a random direction, as the mean of it and its
opposite, and the direction of another alive latent of the sibling from the same stratum of frequencies. Any large
change shrinks all else behind a LayerNorm, so that even random directions can agree a little. A twin that points the
other way has the opposite effect and counts as that; one that does not fire where the latent does has none, and agrees
in nothing. The excess is over the larger control.

Figures are means over latents and then over pairs of seeds, in both directions. The draw of latents belongs to its
seed, so that intervals, which leave out a seed at a time, hold its noise, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from husai_core import panels
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import held_out, stress_panels
from husai_core.kinds.common import panels as common
from husai_core.kinds.common.held_out import HeldOutSpec
from husai_core.kinds.common.statistics import COSINE, SHARE, Range, difference
from husai_core.kinds.common.stress import SIBLINGS
from husai_core.kinds.kind import Facts, Kind, Work
from husai_core.stability.result_tables import Matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from husai_core.benchmarks.interventions import Effects
    from husai_core.benchmarks.splice import Reading
    from husai_core.benchmarks.trials import Dictionary, Trial
    from husai_core.estimate import Estimate

MODES = ("ablation", "steering")
FIGURES: dict[str, Range] = {"cosine": COSINE, "sign_agreement": SHARE}
"""What is compared of two effects, and what it can be."""
CONTROLS = {"random direction": "_random", "another latent": "_other"}
"""What twins are held against, and what names of its statistics end in."""
SHOWN_TOKENS = 4


class Spec(HeldOutSpec):
    """How many latents are measured, and on how much text."""

    n_latents: int = Field(32, ge=2, le=10_000, description="latents drawn from each SAE")
    sequences: int = Field(4, ge=1, le=1000, description="sequences for each latent, of those in which it fires")
    strength: float = Field(
        1.0, gt=0, le=1000, description="steering adds this multiple of the latent's mean where it fires"
    )
    tokens: int = Field(10, ge=1, le=1000, description="most changed tokens whose signs are compared")


class Latent(BaseResult):
    """A latent of the first SAE; figures are means over its twins."""

    latent: int
    frequency: float = Field(description="share of rows on which it fires")
    twin_cosine: float = Field(description="of the decoder rows, sign kept")
    figures: dict[str, float | None] = Field(description="agreement by name; unknown where it changes no logit")
    controls: dict[str, float | None] = Field(description="the same of the larger control")
    raised: list[tuple[str, float]] = Field(description="tokens whose logits ablation raises most, on average")
    lowered: list[tuple[str, float]]


class Result(Evidence):
    """Agreement of twins (`ablation_cosine` and its like), of controls (`_random`, `_other`), and the differences."""

    seeds: list[int]
    hook_name: str
    latents_per_seed: list[int] = Field(description="latents that were drawn from each SAE")
    predictions: int = Field(description="predictions of which ablations were compared, over all latents")
    strength: float
    tokens: int
    matrices: dict[str, Matrix] = Field(description="agreement of every pair of seeds, both directions averaged")
    latents: list[Latent] = Field(description="those of the first SAE")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Draw the latents, intervene on each, its twins and the controls, and compare."""
    from husai_core.benchmarks import interventions, trials
    from husai_core.seeding import seed_everything
    from husai_core.stability import seed_group

    seed_everything(spec.seed)
    group = seed_group.siblings(inputs.many("saes"))
    reading = trials.at_predictions(held_out.read(spec, inputs, group, job))
    planned = len(group.saes) * spec.n_latents * spec.sequences
    count = held_out.counter(job, 2 * len(reading.sample) + planned)
    siblings = trials.dictionaries(reading, group.saes, count)
    drawn = trials.draw(reading, siblings, spec.n_latents, spec.sequences, spec.seed, count)
    job.log(f"{sum(map(len, drawn))} latents of {len(drawn)} SAEs at {reading.hook}")
    measured = [
        [interventions.effects(reading, siblings, trial, spec.strength, count) for trial in of_sae] for of_sae in drawn
    ]
    count(planned - sum(len(trial.sequences) for of_sae in drawn for trial in of_sae))
    agreements = [interventions.agreements(of_sae, spec.tokens, len(drawn), a) for a, of_sae in enumerate(measured)]
    cosines = [trials.twin_cosines(siblings, of_sae) for of_sae in drawn]
    matrices = _matrices(agreements) | {"twin_cosine": _symmetric([values.nanmean(0) for values in cosines])}
    return Result(
        **held_out.evidence(group, inputs),
        statistics=_statistics(matrices),
        seeds=group.seeds,
        hook_name=reading.hook,
        latents_per_seed=list(map(len, drawn)),
        predictions=sum(effects["ablation"].predictions for of_sae in measured for effects in of_sae),
        strength=spec.strength,
        tokens=spec.tokens,
        matrices=matrices,
        latents=[
            _latent(reading, siblings[0], trial, effects["ablation"], figures, float(cosine.nanmean()))
            for trial, effects, figures, cosine in zip(
                drawn[0], measured[0], _by_latent(agreements[0]), cosines[0], strict=True
            )
        ],
    )


def _matrices(agreements: Sequence[Mapping[str, Tensor]]) -> dict[str, Matrix]:
    """Of twins and of controls, by name: the agreement of every pair of SAEs, as a mean over latents."""
    return {
        name + ending: _symmetric([of_sae[name][:, i].nanmean(0) for of_sae in agreements])
        for name in agreements[0]
        for i, ending in enumerate(("", *CONTROLS.values()))
    }


def _symmetric(directed: Sequence[Tensor]) -> Matrix:
    """The mean of both directions; `directed` is, for each SAE, a figure by sibling [n]."""
    import torch

    figures = torch.stack(list(directed))
    return [[common.finite(value) for value in row] for row in ((figures + figures.T) / 2).tolist()]


def _statistics(matrices: Mapping[str, Matrix]) -> dict[str, Estimate]:
    """Means over pairs of seeds, with the differences to each control and to the larger one."""
    from husai_core.stability.intervals import pair_mean, smallest

    means = {
        name: pair_mean([[float("nan") if value is None else value for value in row] for row in matrix])
        for name, matrix in matrices.items()
    }
    statistics = {"twin_cosine": means["twin_cosine"].estimate().within(*COSINE)}
    for mode in MODES:
        for figure, values in FIGURES.items():
            name = f"{mode}_{figure}"
            for ending in ("", *CONTROLS.values()):
                statistics[name + ending] = means[name + ending].estimate().within(*values)
            above = {ending: (means[name] - means[name + ending]).estimate() for ending in CONTROLS.values()}
            for ending, excess in above.items():
                statistics[f"{name}_minus{ending}"] = excess.within(*difference(values))
            statistics[f"{name}_excess"] = smallest(list(above.values())).within(*difference(values))
    return statistics


def _by_latent(agreements: Mapping[str, Tensor]) -> list[dict[str, tuple[float | None, float | None]]]:
    """For each latent, by name, the agreement of its twins and of the larger control, as means over siblings."""
    means = {name: figures.nanmean(2) for name, figures in agreements.items()}
    n = len(next(iter(means.values())))
    return [
        {name: (common.finite(float(of[i, 0])), common.finite(float(of[i, 1:].max()))) for name, of in means.items()}
        for i in range(n)
    ]


def _latent(
    reading: Reading,
    dictionary: Dictionary,
    trial: Trial,
    ablation: Effects,
    figures: Mapping[str, tuple[float | None, float | None]],
    twin_cosine: float,
) -> Latent:
    """What is shown of a latent of the first SAE."""
    change = (ablation.change[0] / max(1, ablation.predictions)).cpu()
    most = [change.topk(min(SHOWN_TOKENS, len(change)), largest=largest) for largest in (True, False)]
    raised, lowered = (
        list(zip(reading.model.words(top.indices.tolist()), top.values.tolist(), strict=True)) for top in most
    )
    return Latent(
        latent=trial.latent,
        frequency=float(dictionary.frequency[trial.latent]),
        twin_cosine=twin_cosine,
        figures={name: twins for name, (twins, _) in figures.items()},
        controls={name: control for name, (_, control) in figures.items()},
        raised=raised,
        lowered=lowered,
    )


def present(result: Result) -> list[panels.AnyPanel]:
    """Whether twins do the same, beside the controls, and every latent of the first SAE."""
    excess, reached = (result.statistics.get(f"ablation_cosine{ending}") for ending in ("_excess", ""))
    twins = "a latent and its twin in another seed agree in what they do in the network"
    agree = {
        "above": f"{twins.capitalize()}, more than chance explains",
        "below": f"{twins.capitalize()} less than chance explains",
    }
    undecided = f"Whether {twins} is undecided"
    text = (
        f"{agree.get(common.side(excess), undecided)}: where they are ablated, the changes of the logits have a cosine "
        f"of {common.interval(reached)}, which is {common.interval(excess)} above the larger control."
    )
    figures = [(f"{mode}: above controls", f"{mode}_cosine_excess") for mode in MODES]
    figures += [(f"{mode}: cosine of the effects", f"{mode}_cosine") for mode in MODES]
    figures.append(("cosine of the decoder rows", "twin_cosine"))
    return [
        stress_panels.headline(result, text, figures),
        _levels(result, "cosine", "Cosine of the effects, beside controls", "cosine with the latent's effect"),
        _levels(result, "sign_agreement", "Tokens changed to the same side, beside controls", "share of tokens"),
        _excess(result),
        _table(result),
        stress_panels.statistics_table(result, _words, note="With 95 % intervals over seeds. n: number of seeds."),
    ]


def _levels(result: Result, figure: str, title: str, x_label: str) -> panels.Intervals:
    """A figure of twins and controls; a point is a pair of seeds."""
    rows = []
    for mode in MODES:
        for said, ending in (("twin", ""), *CONTROLS.items()):
            name = f"{mode}_{figure}{ending}"
            points = common.pair_points(result.matrices.get(name, []), result.seeds)
            rows += common.interval_row(f"{mode}, {said}", result.statistics.get(name), points)
    note = {
        "cosine": "Of the changes of all logits at all predictions. 1: the same effect; negative: the opposite one.",
        "sign_agreement": f"Of the {result.tokens} tokens that the latent changes most on average.",
    }[figure]
    shared = "A point is a pair of seeds; intervals are over seeds. Controls have the norm of the latent's own term."
    return panels.Intervals(title=title, note=f"{note} {shared}", rows=rows, x_label=x_label)


def _excess(result: Result) -> panels.Intervals:
    """What is left above each control."""
    rows = []
    for mode in MODES:
        for said, ending in CONTROLS.items():
            rows += common.interval_row(f"{mode}, above {said}", result.statistics.get(f"{mode}_cosine_minus{ending}"))
    zero = [panels.Reference(label="as a control", value=0.0)]
    note = f"Above 0: twins agree more than the control. {stress_panels.POLICY}"
    return panels.Intervals(title="Above the controls", note=note, rows=rows, references=zero, x_label="cosine")


def _table(result: Result) -> panels.Table:
    """The latents of the first SAE, folded."""
    figures = {"ablation_cosine": "abl.", "steering_cosine": "steer.", "ablation_sign_agreement": "abl. signs"}
    columns = [
        panels.Column(label="latent", format="integer"),
        panels.Column(label="fires", format="share"),
        panels.Column(label="twin cos.", format="number"),
    ]
    for name, label in figures.items():
        form: panels.Format = "share" if name.endswith("agreement") else "number"
        columns += [panels.Column(label=label, format=form), panels.Column(label=f"{label} control", format=form)]
    columns += [panels.Column(label="ablation raises", room="wide"), panels.Column(label="ablation lowers")]
    rows: list[list[panels.Cell]] = [
        [
            record.latent,
            record.frequency,
            record.twin_cosine,
            *(cell for name in figures for cell in (record.figures.get(name), record.controls.get(name))),
            *(" ".join(repr(token) for token, _ in tokens) for tokens in (record.raised, record.lowered)),
        ]
        for record in sorted(result.latents, key=lambda record: -record.frequency)
    ]
    note = (
        "Of the first SAE, by how often they fire; figures are means over its twins. Abl., steer.: cosine of the "
        "effects; control: that of the larger control; signs: share of the most changed tokens that the twin changes "
        "to the same side; raises, lowers: tokens whose logits ablation changes most."
    )
    return panels.Table(title="Latents", note=note, folded=True, columns=columns, rows=rows)


ENDS = {
    "_minus_random": "twin - random direction",
    "_minus_other": "twin - another latent",
    "_random": "random direction",
    "_other": "another latent",
    "_excess": "above larger control",
}


def _words(name: str) -> tuple[str, str]:
    """A statistic's measure and figure in words."""
    if name == "twin_cosine":
        return "cosine of the decoder rows", "twin"
    ending = next((ending for ending in ENDS if name.endswith(ending)), "")
    mode, _, figure = name.removesuffix(ending).partition("_")
    return f"{mode}, {figure.replace('_', ' ')}", ENDS.get(ending, "twin")


def estimate(spec: Spec, facts: Facts) -> Work:
    """A forward pass for each sequence of each latent, once clean and once for each intervention."""
    saes = max(2, len(facts.get("saes", ())))
    passes = 1 + len(MODES) * (3 + 2 * (saes - 1))
    share = saes * spec.n_latents * spec.sequences / spec.max_sequences
    return held_out.estimate(spec, facts, passes=1 + share * passes - saes, random_saes=0)


def statistics() -> dict[str, Range]:
    """Every statistic with the values that it can take."""
    ranges: dict[str, Range] = {"twin_cosine": COSINE}
    for name, values in ((f"{mode}_{figure}", values) for mode in MODES for figure, values in FIGURES.items()):
        ranges |= {name + ending: values for ending in ("", *CONTROLS.values())}
        ranges |= {f"{name}_minus{ending}": difference(values) for ending in CONTROLS.values()}
        ranges[f"{name}_excess"] = difference(values)
    return ranges


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=held_out.INPUTS | {"saes": SIBLINGS},
    run=run,
    estimate=estimate,
    present=present,
    assets=held_out.needed_assets,
    presets={"smoke": {"max_sequences": 48, "n_latents": 4, "sequences": 2}},
    statistics=statistics(),
)
