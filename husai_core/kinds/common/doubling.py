"""What the last doubling of the tokens changed: figures of halves and wholes. Light: no torch, no scipy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from husai_core import panels
from husai_core.estimate import Estimate
from husai_core.evidence import BaseResult
from husai_core.kinds.common.panels import MINUS, interval_row, label
from husai_core.stability.result_tables import RANGES
from husai_core.stability.settled import Settled, all_settled, margin, settled

if TYPE_CHECKING:
    from husai_core.job import Job
    from husai_core.saes.evaluate import Figures
    from husai_core.saes.trainer import TrainedSAE

COMPARED = ("explained_variance", "l0", "dead_fraction")
TONES: dict[Settled, panels.Tone] = {"yes": "good", "no": "bad", "unknown": "unknown"}


class HalfFigures(BaseResult):
    """The copy of an SAE that came to rest at half the tokens, on the test rows."""

    explained_variance: float
    l0: float = Field(description="non-zero latents per row")
    dead_fraction: float = Field(description="share of latents that are zero on all test rows")


class Measured(Protocol):
    """What is compared of one SAE."""

    @property
    def explained_variance(self) -> float:
        """On the test rows."""

    @property
    def half(self) -> HalfFigures | None:
        """None only where the recipe has no half."""


class Doubling(BaseResult):
    """Half and whole budget of the SAEs of one variant."""

    half: dict[str, Estimate] = Field({}, description="means over seeds of the copies at half the tokens")
    changes: dict[str, Estimate] = Field(
        {}, description="whole less half, paired by seed: explained_variance, and from two seeds on pwmcc between seeds"
    )
    settled: Settled = Field(description="the interval of every change lies inside ± its margin")
    why_no_half: str | None = Field(None, description="why nothing was measured at half the tokens")


def half_figures(measured: Figures) -> HalfFigures:
    """What a result keeps of a half's figures."""
    return HalfFigures(**{name: getattr(measured, name) for name in COMPARED})


def doublings(saes: Sequence[TrainedSAE], variants: Sequence[Sequence[Measured]], job: Job) -> list[Doubling]:
    """Half and whole of every variant, whose SAEs come one variant after the other; reports its pairs as progress."""
    ends = accumulate(map(len, variants))
    return [
        _doubling(saes[end - len(members) : end], members, job) for members, end in zip(variants, ends, strict=True)
    ]


def _doubling(saes: Sequence[TrainedSAE], members: Sequence[Measured], job: Job) -> Doubling:
    from husai_core.stability.intervals import seed_mean

    if why := saes[0].recipe.why_no_half:
        return Doubling(settled="unknown", why_no_half=why)
    values = {name: [float(getattr(member.half, name)) for member in members] for name in COMPARED}
    means = {name: seed_mean(column).estimate().within(*RANGES[name]) for name, column in values.items()}
    whole, half = seed_mean([member.explained_variance for member in members]), values["explained_variance"]
    changes = {"explained_variance": (whole - seed_mean(half)).estimate()}
    if len(saes) > 1:
        changes["pwmcc"] = _overlap_change(saes, job)
    answers = [settled(change, margin(name)) for name, change in changes.items()]
    return Doubling(half=means, changes=changes, settled=all_settled(answers))


def _overlap_change(saes: Sequence[TrainedSAE], job: Job) -> Estimate:
    """How much more the SAEs of two seeds share at the end than at half the tokens, by PWMCC over all latents."""
    from husai_core.stability.overlap import pair_statistic

    pairs = len(saes) * (len(saes) - 1) // 2

    def report(first: int) -> Callable[[int], None]:
        return lambda done: job.progress(first + done, 2 * pairs, "pairs of seeds")

    whole = pair_statistic([sae.decoder.to(job.device) for sae in saes], report(0))
    half = pair_statistic([sae.half.decoder.to(job.device) for sae in saes if sae.half], report(pairs))
    return (whole - half).estimate().within(-1, 1)


def sentence(doublings: Sequence[Doubling]) -> str:
    """What the halves say, in words; nothing where nothing is known of them."""
    if not doublings:
        return ""
    reasons = [doubling.why_no_half for doubling in doublings]
    if all(reasons):
        return f"Whether the figures had settled is unknown. {reasons[0]}"
    count, several = sum(doubling.settled == "yes" for doubling in doublings), len(doublings) > 1
    if count == len(doublings):
        return (
            "The last doubling of the tokens changed explained variance and overlap by less than their margins, which "
            "does not say that more tokens would bring nothing."
        )
    if several:
        return (
            f"In {count} of {len(doublings)} variants the last doubling of the tokens is known to have changed little."
        )
    if doublings[0].settled == "no":
        return "The last doubling of the tokens still changed more than the margins allow."
    if min(change.n for change in doublings[0].changes.values()) < 3:
        return "Whether the figures had settled is unknown: below 3 seeds the change has no interval."
    return "Whether the figures had settled is unknown: the interval of a change reaches beyond its margin."


def change_panels(names: Sequence[str], doublings: Sequence[Doubling]) -> list[panels.AnyPanel]:
    """The change of every figure by the last doubling, against ± its margin, one panel a figure."""
    figures = dict.fromkeys(name for doubling in doublings for name in doubling.changes)
    return [panel for figure in figures for panel in _changes(figure, names, doublings)]


def _changes(figure: str, names: Sequence[str], doublings: Sequence[Doubling]) -> list[panels.AnyPanel]:
    limit = margin(figure)
    rows = [
        row.model_copy(update={"tone": TONES[settled(row.estimate, limit)]})
        for name, doubling in zip(names, doublings, strict=True)
        for row in interval_row(name, doubling.changes.get(figure))
    ]
    intervals = panels.Intervals(
        title=f"Change of the {label(figure)} by the last doubling of the tokens",
        note=f"Whole less half the tokens, paired by seed, with 95 % intervals. Inside ± {limit:g} it changed little.",
        rows=rows,
        references=[
            panels.Reference(label=f"{MINUS}{limit:g}", value=-limit),
            panels.Reference(label=f"+{limit:g}", value=limit),
        ],
        x_label=f"change of the {label(figure)}",
    )
    return [intervals] if rows else []
