from __future__ import annotations

from typing import Any

from husai_core.estimate import Estimate
from husai_core.evidence import Answer, Evidence, Provenance, RecipeCheck, RecipeFigure
from husai_core.release.evidence import Control, Controls, EvidenceItem, result_digest
from husai_core.release.judge import DAY
from husai_core.release.policy import Policy, Rule, StatisticRule

AS_OF = "2026-01-31T12:00:00Z"
AT = 1769860800.0
CANDIDATE, SIBLING = "c" * 64, "d" * 64
CLEAR = {
    "explained_variance": 0.95,
    "l0_per_dimension": 0.1,
    "loss_recovered": 0.98,
    "kl_recovered_minus_random": 0.15,
    "pwmcc_excess": 0.4,
    "pwmcc_excess_rescaled": 0.5,
    "sae_minus_transcoder": 0.1,
    "sae_minus_transcoder_rescaled": 0.1,
    "explained_variance_drop": 0.01,
    "probe_accuracy_drop_excess": 0.0,
    "trained_minus_untrained": 0.3,
    "best_minus_llm_auc": 0.02,
    "fraction_of_bound_minus_baseline": 0.05,
}


def interval(value: float, half_width: float = 0.01, n: int = 5) -> Estimate:
    return Estimate(value=value, low=value - half_width, high=value + half_width, n=n)


MARGINS = {"explained_variance": 0.02, "l0": 0.4, "pwmcc": 0.05}


def recipe_check(agrees: Answer = "yes", *differing: str) -> RecipeCheck:
    """SAEs of a claimed recipe beside imported ones, which differ in some figures, or perhaps do."""
    around = {"yes": (0.0, 0.1), "no": (2.0, 0.1), "unknown": (0.5, 1.0)}
    figures = {}
    for name, margin in MARGINS.items():
        is_alike = "yes" if differing and name not in differing else agrees
        value, half_width = (factor * margin for factor in around[is_alike])
        figures[name] = RecipeFigure(
            imported=interval(0.9 + value), retrained=interval(0.9), difference=interval(value, half_width),
            margin=margin, agrees=is_alike,
        )  # fmt: skip
    return RecipeCheck(agrees=agrees, figures=figures, retrained=["f" * 64], rows=100)


def result(
    statistics: dict[str, Estimate],
    subject: str = CANDIDATE,
    converged: bool = True,
    leaks_label: bool = False,
    provenance: Provenance | None = "trained here",
    **fields: Any,
) -> dict[str, Any]:
    """A result; unless `fields` say otherwise, the last doubling of training changed nothing that counts, and a recipe
    that is only claimed makes such SAEs."""
    usual: dict[str, Any] = {"changes": {name: interval(0.0, 0.001) for name in statistics}}
    if provenance in ("claimed", "unknown"):
        usual["recipe_check"] = recipe_check()
    evidence = Evidence(
        subject=[subject, SIBLING], converged=converged, leaks_label=leaks_label, statistics=statistics,
        provenance=provenance, **{**usual, **fields},
    )  # fmt: skip
    return evidence.model_dump(mode="json")


def item(
    kind: str,
    statistics: dict[str, Estimate],
    subject: str = CANDIDATE,
    age_days: float = 1,
    inputs: tuple[str, ...] | None = None,
    **fields: Any,
) -> EvidenceItem:
    document = {
        "kind": kind,
        "spec": {"seed": 0},
        "inputs": {"saes": list(inputs or (subject, SIBLING))},
        "code": "0" * 64,
        "device": "cpu",
        "result": result(statistics, subject, **fields),
    }
    return EvidenceItem(digest=result_digest(document), produced_at=AT - age_days * DAY, document=document)


def controls(good: float = 0.5, bad: float = 0.0, **bad_result: Any) -> Controls:
    return Controls(
        good=Control(artifact="a" * 64, result=result({"pwmcc_excess": interval(good)}, "good")),
        bad=Control(artifact="b" * 64, result=result({"pwmcc_excess": interval(bad)}, "bad", **bad_result)),
    )


def statistics_of(policy: Policy) -> list[StatisticRule]:
    return [rule for rule in policy.rules if isinstance(rule, StatisticRule)]


def full_evidence(policy: Policy, fields: dict[str, Any] | None = None, **changed: Estimate) -> list[EvidenceItem]:
    """Evidence that clears every rule but for the statistics in `changed`; `fields` goes into every result."""

    def figures(kind: str) -> dict[str, Estimate]:
        asked = {rule.statistic for rule in statistics_of(policy) if rule.evidence == kind}
        return {name: changed.get(name, interval(CLEAR[name])) for name in sorted(asked)}

    return [item(kind, figures(kind), **fields or {}) for kind in dict.fromkeys(rule.evidence for rule in policy.rules)]


def rule_named(policy: Policy, name: str) -> Rule:
    return next(rule for rule in policy.rules if rule.name == name)
