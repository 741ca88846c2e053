from __future__ import annotations

from typing import Any

from husai_core.estimate import Estimate
from husai_core.evidence import Evidence
from husai_core.release.evidence import Control, Controls, EvidenceItem, result_digest
from husai_core.release.judge import DAY
from husai_core.release.policy import Policy

AS_OF = "2026-01-31T12:00:00Z"
AT = 1769860800.0
CANDIDATE, SIBLING = "c" * 64, "d" * 64
CLEAR = {
    "explained_variance": 0.95,
    "pwmcc_excess": 0.4,
    "sae_minus_transcoder": 0.1,
    "explained_variance_drop": 0.01,
    "probe_accuracy_drop_excess": 0.0,
    "trained_minus_untrained": 0.3,
    "best_minus_llm_auc": 0.02,
    "fraction_of_bound_minus_baseline": 0.05,
}


def interval(value: float, half_width: float = 0.01, n: int = 5) -> Estimate:
    return Estimate(value=value, low=value - half_width, high=value + half_width, n=n)


def result(
    statistics: dict[str, Estimate], subject: str = CANDIDATE, converged: bool = True, leaks_label: bool = False
) -> dict[str, Any]:
    evidence = Evidence(subject=[subject, SIBLING], converged=converged, leaks_label=leaks_label, statistics=statistics)
    return evidence.model_dump(mode="json")


def item(
    kind: str,
    statistics: dict[str, Estimate],
    subject: str = CANDIDATE,
    converged: bool = True,
    leaks_label: bool = False,
    age_days: float = 1,
    inputs: tuple[str, ...] | None = None,
) -> EvidenceItem:
    document = {
        "kind": kind,
        "spec": {"seed": 0},
        "inputs": {"saes": list(inputs or (subject, SIBLING))},
        "code": "0" * 64,
        "device": "cpu",
        "result": result(statistics, subject, converged, leaks_label),
    }
    return EvidenceItem(digest=result_digest(document), produced_at=AT - age_days * DAY, document=document)


def controls(good: float = 0.5, bad: float = 0.0, **bad_result: Any) -> Controls:
    return Controls(
        good=Control(artifact="a" * 64, result=result({"pwmcc_excess": interval(good)}, "good")),
        bad=Control(artifact="b" * 64, result=result({"pwmcc_excess": interval(bad)}, "bad", **bad_result)),
    )


def full_evidence(policy: Policy, **changed: Estimate) -> list[EvidenceItem]:
    kinds = dict.fromkeys(rule.evidence for rule in policy.rules)
    return [
        item(
            kind,
            {
                rule.statistic: changed.get(rule.statistic, interval(CLEAR[rule.statistic]))
                for rule in policy.rules
                if rule.evidence == kind
            },
        )
        for kind in kinds
    ]
