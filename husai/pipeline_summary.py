"""A pipeline in plain words: what was trained, how good it is, and what the gate says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from husai.models import Job
from husai.terminal import number

MEANING = {
    "pass": "The gate says: release. Every rule is met.",
    "fail": "The gate says: do not release. The evidence is against it.",
    "inconclusive": "The gate says: not shown. The evidence does not settle every rule.",
}


def lines(children: Mapping[str, Job]) -> Iterator[tuple[str, str]]:
    """Name and value of the figures that tell whether the stages worked."""
    transformer, sae = (
        dict(children[name].result or {}) if name in children else {} for name in ("transformer", "sae")
    )
    if transformer:
        yield "transformer: accuracy on test pairs", percent(transformer.get("test_accuracy"))
        yield "transformer: leak test", leak(transformer.get("leak") or {})
    members = sae.get("members") or []
    if members:
        yield "SAEs: seeds", str(len(members))
        yield "SAEs: explained variance (test rows)", spread(members, "explained_variance")
        yield "SAEs: active latents per row (L0)", spread(members, "l0")
        yield "SAEs: dead latents", spread(members, "dead_fraction")
        yield "SAEs: decoder's cosine with its start", spread(members, "drift_from_init")
        yield "SAEs: training converged", number(sae.get("converged"))


def leak(test: Mapping[str, Any]) -> str:
    """The leak test in words: with wrong operands a model that does not cheat is at chance."""
    verdict = "passed" if test.get("passed") else "FAILED" if test else "not done"
    operands = percent(test.get("operand_randomised_accuracy"))
    return f"{verdict}: {operands} with random operands, chance is {percent(test.get('chance'))}"


def percent(value: Any) -> str:
    """A share in per cent."""
    return "unknown" if value is None else f"{100 * value:.2f} %"


def spread(members: Sequence[Mapping[str, Any]], name: str) -> str:
    """Mean and range of a figure over seeds."""
    values = [member[name] for member in members if member.get(name) is not None]
    if not values:
        return "unknown"
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return number(mean) if low == high else f"{number(mean)}  ({number(low)} to {number(high)})"
