"""What is each latent: when does it fire, what does it write, and do other seeds have it, too?

The first SAE is described on held-out sequences, latent by latent: how often and how strongly it fires, the contexts in
which it fires most, the tokens whose logits its decoder row raises and lowers (directly, past the last LayerNorm), and
its neighbours in the decoder. With siblings every latent has a twin in each of them, one to one by |cosine|: a latent
reappears in a sibling where that is above 0.7. The share of siblings in which it does estimates the chance that another
seed finds it; its interval is exact, and wide with few seeds. `null_percentile` says how often the best of as many
Gaussian directions comes less close than the twins do on average.

The output `features` holds all records as `features.parquet` and `features.csv`, and in `reappears.safetensors` the
mask of latents that every sibling has.
"""

from __future__ import annotations

from math import ceil, log10
from typing import TYPE_CHECKING, Any

from pydantic import Field

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult, Evidence
from husai_core.job import Inputs, Job
from husai_core.kinds.common import held_out, stress_panels
from husai_core.kinds.common import panels as common
from husai_core.kinds.common.held_out import HeldOutSpec
from husai_core.kinds.common.statistics import SHARE
from husai_core.kinds.kind import Facts, Kind, Port, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from husai_core.benchmarks.features import Activity, Twins
    from husai_core.benchmarks.splice import Reading

OUTPUTS = {"features": Port("table", "a record per latent, and the mask of latents that reappear")}
BEFORE, AFTER = 10, 4
"""Tokens of a context around the one at which the latent fires most."""
NEIGHBOURS = 3
LEADING = 4
"""Tokens that the table shows before the one at which a latent fires most."""
SHOWN, CARDS = 300, 3
"""Latents in the table of the page, and cards of each sort."""
DENSE = 0.1
LEAST_POWER, TINY = 5, -1e-9
"""The smallest power of ten of the histogram, negated; what rounding may add to a logarithm."""
RESIDUAL = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out")
"""Hooks whose vectors are added to, or are, the residual stream."""


class Spec(HeldOutSpec):
    """How much of each latent is kept."""

    contexts: int = Field(5, ge=1, le=50, description="strongest contexts kept of each latent")
    tokens: int = Field(8, ge=1, le=50, description="most promoted and most suppressed tokens kept of each latent")


class Latent(BaseResult):
    """The record of one latent."""

    latent: int
    frequency: float = Field(description="share of rows on which it fires")
    mean_activation: float | None = Field(description="where it fires; unknown if it never does")
    max_activation: float
    found_fraction: float | None = Field(None, description="share of siblings in which it reappears")
    found_low: float | None = None
    found_high: float | None = None
    twin_cosine: float | None = Field(None, description="mean |cosine| with its twins")
    twin_correlation: float | None = Field(None, description="mean correlation of activations with its twins'")
    null_percentile: float | None = None
    twins: list[int] = Field([], description="its twin in each sibling; -1: none")
    neighbours: list[tuple[int, float]] = Field(description="nearest latents of its own SAE, with |cosine|")
    promoted: list[tuple[str, float]]
    suppressed: list[tuple[str, float]]
    contexts: list[panels.Context]


class Result(Evidence):
    """Shares of all latents, and the records that are shown; all of them are in the output."""

    seeds: list[int]
    hook_name: str
    sequences: int
    rows: int
    d_sae: int
    frequencies: dict[str, int] = Field(description="latents by how often they fire")
    shown: list[Latent] = Field(description="the most frequent latents")
    cards: dict[str, list[Latent]] = Field(description="stable, unstable and dense latents")


def run(spec: Spec, inputs: Inputs, job: Job) -> Result:
    """Read the rows once, and describe every latent."""
    from husai_core.benchmarks import features
    from husai_core.seeding import seed_everything
    from husai_core.stability import seed_group

    seed_everything(spec.seed)
    group = seed_group.siblings(inputs.many("saes"))
    reading = held_out.read(spec, inputs, group, job)
    first, *others = group.saes
    partners = [features.twins(first.decoder, other.decoder) for other in others]
    siblings = [(sae.to(job.device), twin.index.to(job.device)) for sae, twin in zip(others, partners, strict=True)]
    activity = features.Activity(first.to(job.device), siblings, spec.contexts)
    features.read(reading, activity, held_out.counter(job, len(reading.sample)))
    records = _records(spec, reading, activity, partners)
    _write(records, job)
    return Result(
        **held_out.evidence(group, inputs),
        statistics=_shares(records, partners, activity.n),
        seeds=group.seeds,
        hook_name=reading.hook,
        sequences=len(reading.sample),
        rows=activity.n,
        d_sae=first.d_sae,
        frequencies=_histogram([record.frequency for record in records]),
        shown=_most_frequent(records),
        cards=_cards(records),
    )


def _most_frequent(records: Sequence[Latent]) -> list[Latent]:
    """The latents of the page's table, each with its strongest context alone."""
    frequent = sorted(records, key=lambda record: -record.frequency)[:SHOWN]
    return [record.model_copy(update={"contexts": record.contexts[:1]}) for record in frequent]


def _shares(records: Sequence[Latent], partners: Sequence[Twins], rows: int) -> dict[str, Estimate]:
    """Shares of the latents; those that siblings find are of the latents that fire, with an interval over siblings."""
    import torch

    from husai_core.benchmarks.features import FOUND
    from husai_core.stability.intervals import seed_mean

    plain = {
        "dead_fraction": sum(record.frequency == 0 for record in records) / len(records),
        "dense_fraction": sum(record.frequency > DENSE for record in records) / len(records),
    }
    alive = torch.tensor([record.frequency > 0 for record in records])
    shares = {name: Estimate(value=share, n=rows, unit="row") for name, share in plain.items()}
    if not partners or not alive.any():
        return shares
    finding = torch.stack([twins.cosine[alive] > FOUND for twins in partners])
    by_all = Estimate(value=float(finding.all(0).double().mean()), n=len(partners), unit="sibling")
    chance = seed_mean(finding.double().mean(1).tolist()).estimate().within(0, 1)
    return shares | {"found_fraction": chance, "found_by_all_fraction": by_all}


def _records(spec: Spec, reading: Reading, activity: Activity, partners: Sequence[Twins]) -> list[Latent]:
    """All records, in the order of the latents."""
    from husai_core.benchmarks.features import nearest

    decoder = activity.sae.decoder.cpu()
    cosines, neighbours = nearest(decoder, decoder, NEIGHBOURS, skip_self=True)
    effects, twin, contexts = _effects(spec, reading, activity), _twin_fields(activity, partners), _Contexts(reading)
    fired, total, top, at = (value.cpu() for value in (activity.fired, activity.total, activity.top, activity.at))
    return [
        Latent(
            latent=i,
            frequency=float(fired[i]) / activity.n,
            mean_activation=float(total[i] / fired[i]) if fired[i] else None,
            max_activation=float(top[i, 0]),
            neighbours=list(zip(neighbours[i].tolist(), cosines[i].tolist(), strict=True)),
            contexts=[
                contexts.around(row, value)
                for row, value in zip(at[i].tolist(), top[i].tolist(), strict=True)
                if value > 0
            ],
            **effects(i),
            **twin(i),
        )
        for i in range(len(decoder))
    ]


class _Contexts:
    """Texts around rows, which are counted as they are read."""

    def __init__(self, reading: Reading) -> None:
        self.tokens = reading.model.inputs(reading.sample.tokens)
        self.place = reading.sample.rows.nonzero().tolist()
        known = sorted(set(self.tokens.flatten().tolist()))
        self.words = dict(zip(known, reading.model.words(known), strict=True))

    def around(self, row: int, activation: float) -> panels.Context:
        """The text around a row, with the activation at its token."""
        sequence, place = self.place[row]
        first = max(0, place - BEFORE)
        tokens = [self.words[token] for token in self.tokens[sequence, first : place + AFTER + 1].tolist()]
        return panels.Context(
            tokens=tokens, activations=[activation if first + i == place else 0.0 for i in range(len(tokens))]
        )


def _effects(spec: Spec, reading: Reading, activity: Activity) -> Callable[[int], dict[str, Any]]:
    """The tokens that a latent promotes and suppresses; none where the hook does not write to the residual stream."""
    from husai_core.benchmarks.features import logit_effects

    if not reading.hook.endswith(RESIDUAL):
        return lambda latent: {"promoted": [], "suppressed": []}
    unembedding, words = reading.model.unembedding, reading.model.words
    k = min(spec.tokens, unembedding.shape[1])
    pairs = logit_effects(activity.sae.decoder, unembedding, k)

    def of(latent: int) -> dict[str, Any]:
        return {
            name: list(zip(words(tokens[latent].tolist()), values[latent].tolist(), strict=True))
            for name, (values, tokens) in zip(("promoted", "suppressed"), pairs, strict=True)
        }

    return of


def _twin_fields(activity: Activity, partners: Sequence[Twins]) -> Callable[[int], dict[str, Any]]:
    """What is known of a latent's twins; nothing without siblings."""
    import torch

    from husai_core.benchmarks.features import FOUND, found_interval, null_percentile

    if not partners:
        return lambda latent: {}
    cosines, n = torch.stack([twins.cosine for twins in partners]), len(partners)
    counts, mean = (cosines > FOUND).sum(0).tolist(), cosines.mean(0)
    percentiles = null_percentile(mean, *activity.sae.W_dec.shape)
    correlation, intervals = activity.correlations().nanmean(0), [found_interval(count, n) for count in range(n + 1)]

    def of(latent: int) -> dict[str, Any]:
        low, high = intervals[counts[latent]]
        return {
            "found_fraction": counts[latent] / n,
            "found_low": low,
            "found_high": high,
            "twin_cosine": float(mean[latent]),
            "twin_correlation": common.finite(float(correlation[latent])),
            "null_percentile": float(percentiles[latent]),
            "twins": [int(twins.index[latent]) for twins in partners],
        }

    return of


def _write(records: Sequence[Latent], job: Job) -> None:
    """All records as tables, and the mask of latents that every sibling has, where there are siblings."""
    import torch
    from safetensors.torch import save_file

    from husai_core.benchmarks import feature_files

    folder = job.output("features", "table")
    rows = [record.model_dump(mode="json") | {"contexts": list(map(_marked, record.contexts))} for record in records]
    feature_files.write(folder, rows)
    if records[0].twins:
        mask = torch.tensor([record.found_fraction == 1 for record in records])
        save_file({"reappears": mask}, folder / "reappears.safetensors")


def _marked(context: panels.Context) -> str:
    """A context as text, its strongest token in guillemets."""
    pairs = zip(context.tokens, context.activations, strict=True)
    return "".join(f"«{token}»" if activation > 0 else token for token, activation in pairs)


def _histogram(frequencies: Sequence[float]) -> dict[str, int]:
    """Latents by the power of ten of the share of rows on which they fire."""
    bins = {"never": 0} | {f"up to {10.0**-power:.{max(0, power - 2)}%}": 0 for power in range(LEAST_POWER, -1, -1)}
    names = list(bins)
    for frequency in frequencies:
        place = 0 if frequency == 0 else max(1, LEAST_POWER + 1 + ceil(log10(frequency) + TINY))
        bins[names[min(place, len(names) - 1)]] += 1
    return bins


def _cards(records: Sequence[Latent]) -> dict[str, list[Latent]]:
    """A few latents of each sort: the most frequent that all siblings have, that none has, and the densest."""
    frequent = sorted(records, key=lambda record: -record.frequency)
    usual = [record for record in frequent if 0 < record.frequency <= DENSE]
    sorts = {
        "stable": [record for record in usual if record.found_fraction == 1],
        "unstable": [record for record in usual if record.found_fraction == 0],
        "dense": [record for record in frequent if record.frequency > DENSE],
        "frequent": [record for record in usual if record.found_fraction is None],
    }
    return {name: chosen[:CARDS] for name, chosen in sorts.items() if chosen}


def present(result: Result) -> list[panels.AnyPanel]:
    """How many latents other seeds find, how often latents fire, and a few of them."""
    chance = result.statistics.get("found_fraction")
    by_all = result.statistics.get("found_by_all_fraction")
    dead = result.statistics.get("dead_fraction")
    text = f"{result.d_sae} latents on {result.rows} held-out rows; {common.percent(_value(dead))} never fire."
    if chance is not None:
        text += (
            f" Another seed finds a latent that fires with a chance of {common.interval(chance)}; all "
            f"{len(result.seeds) - 1} siblings have {common.percent(_value(by_all))} of them."
        )
    figures = [("found by another seed", "found_fraction"), ("by all", "found_by_all_fraction")]
    cards = [_card(name, record) for name, records in result.cards.items() for record in records]
    return [stress_panels.headline(result, text, figures), _frequencies(result), _table(result), *cards]


def _value(estimate: Estimate | None) -> float | None:
    return estimate.value if estimate else None


def _frequencies(result: Result) -> panels.Bars:
    bars = [panels.Bar(label=name, value=count) for name, count in result.frequencies.items()]
    note = "Latents by the share of rows on which they fire."
    return panels.Bars(title="How often latents fire", note=note, bars=bars, x_label="latents")


COLUMNS = {
    "frequency": "fires",
    "mean_activation": "mean act.",
    "max_activation": "max. act.",
    "found_fraction": "found",
    "twin_cosine": "twin cos.",
    "twin_correlation": "twin corr.",
    "null_percentile": "null pct.",
}


def _table(result: Result) -> panels.Table:
    """The most frequent latents, one a row."""
    shares = ("frequency", "found_fraction")
    columns = [panels.Column(label="latent", format="integer")]
    columns += [
        panels.Column(label=label, format="share" if name in shares else "number") for name, label in COLUMNS.items()
    ]
    columns += [panels.Column(label="fires most at"), panels.Column(label="promotes")]
    rows: list[list[panels.Cell]] = [
        [
            record.latent,
            *(getattr(record, name) for name in COLUMNS),
            _strongest(record),
            " ".join(repr(token) for token, _ in record.promoted[:3]),
        ]
        for record in result.shown
    ]
    note = (
        f"The {len(rows)} most frequent latents; all are in the output `features`. Found: share of siblings with a "
        "twin above |cosine| 0.7; null pct.: how often the best of as many Gaussian directions comes less close."
    )
    return panels.Table(title="Latents", note=note, columns=columns, rows=rows, searchable=True)


def _strongest(record: Latent) -> str:
    """The token at which a latent fires most, with a few before it."""
    if not record.contexts:
        return ""
    context = record.contexts[0]
    at = max(range(len(context.tokens)), key=context.activations.__getitem__)
    return f"{''.join(context.tokens[max(0, at - LEADING) : at])}«{context.tokens[at]}»"


def _card(sort: str, record: Latent) -> panels.FeatureCard:
    """One latent, as stable, unstable or dense."""
    figures = [
        panels.Figure(label=label, value=value, format="share" if name in ("frequency", "found_fraction") else "number")
        for name, label in COLUMNS.items()
        if (value := getattr(record, name)) is not None
    ]
    return panels.FeatureCard(
        title=f"Latent {record.latent}, {sort}",
        latent=record.latent,
        figures=figures,
        contexts=record.contexts,
        promoted=record.promoted,
        suppressed=record.suppressed,
    )


def estimate(spec: Spec, facts: Facts) -> Work:
    """Reading up to the hook, and what every SAE computes."""
    return held_out.estimate(spec, facts, passes=0, random_saes=0)


KIND = Kind(
    spec=Spec,
    result=Result,
    inputs=held_out.INPUTS,
    outputs=OUTPUTS,
    libraries=("pyarrow",),
    run=run,
    estimate=estimate,
    present=present,
    assets=held_out.needed_assets,
    presets={"smoke": {"max_sequences": 48}},
    statistics=dict.fromkeys(("dead_fraction", "dense_fraction", "found_fraction", "found_by_all_fraction"), SHARE),
)
