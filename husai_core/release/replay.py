"""Replay of the published release decisions by the engine and the policy `reference-2026-02`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from husai_core.estimate import Estimate
from husai_core.evidence import Evidence
from husai_core.release.evidence import EvidenceItem, result_digest
from husai_core.release.judge import judge_rule
from husai_core.release.policy import StatisticRule, load
from husai_core.release.settled import LEAST_UNITS

POLICY = "reference-2026-02"
CANDIDATE = "published"
INTERNAL = {
    "random_model.delta": ("trained_random_delta", "min_trained_random_delta"),
    "random_model.lcb": ("trained_random_delta_lcb", "min_trained_random_lcb"),
    "transcoder": ("transcoder_delta", "min_transcoder_delta"),
    "ood": ("ood_drop", "max_ood_drop"),
}


def gates(metrics: Mapping[str, float | None], thresholds: Mapping[str, Any]) -> dict[str, bool]:
    """The published gates, recomputed from the `metrics` and `thresholds` of a published file.

    The names are those of the file: `random_model`, `transcoder`, `ood`, `external` and `pass_all`, and
    `external_saebench` and `external_cebench` where these were judged one by one.
    """
    policy = load(POLICY)
    external = _external(metrics, thresholds)
    passes: dict[str, bool] = {}
    for rule in (rule for rule in policy.rules if isinstance(rule, StatisticRule)):
        gate = rule.name.split(".")[0]
        if (names := {**INTERNAL, **external}.get(rule.name)) is None:
            continue
        value, sign = metrics.get(names[0]), -1 if rule.name == "transcoder" else 1
        rule = rule.model_copy(update={"threshold": sign * thresholds.get(names[1], rule.threshold)})
        evidence = [] if value is None else [_item(rule, sign * value)]
        waived = value is None and gate != "random_model" and not thresholds.get(f"require_{gate}")
        passed = waived or judge_rule(policy, rule, CANDIDATE, evidence, at=0).verdict == "pass"
        passes[gate] = passes.get(gate, True) and passed
        if names[0] != "external_delta" and gate == "external":
            passes[rule.name.replace(".", "_")] = passed
    return passes | {"pass_all": all(passes.values())}


def _external(metrics: Mapping[str, float | None], thresholds: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Which figure and threshold each external rule reads: the published mode decides."""
    lcb = bool(thresholds.get("use_external_lcb"))
    figure, threshold = ("_ci95_low", "_lcb") if lcb else ("", "")
    both = {
        "external.saebench": (f"saebench_delta{figure}", f"min_saebench_delta{threshold}"),
        "external.cebench": (f"cebench_interp_delta_vs_baseline{figure}", f"min_cebench_delta{threshold}"),
    }
    mode = thresholds.get("external_mode", "auto")
    present = all(metrics.get(name) is not None for name, _ in both.values())
    if mode == "joint" or (mode == "auto" and (present or lcb)):
        return both
    if mode == "auto":
        return {"external.saebench": ("external_delta", "min_external_delta")}
    return {f"external.{mode}": both[f"external.{mode}"]}


def _item(rule: StatisticRule, figure: float) -> EvidenceItem:
    """A published figure as evidence; it stands for both the value and the bound that the rule reads.

    The published rules asked neither how many seeds there were nor whether the input shows the answer.
    """
    estimate = Estimate(value=figure, low=figure, high=figure, n=LEAST_UNITS)
    statistics = {rule.statistic: estimate}
    result = Evidence(subject=[CANDIDATE], converged=False, leaks_label=False, statistics=statistics)
    document = {"kind": rule.evidence, "inputs": {"saes": [CANDIDATE]}, "result": result.model_dump(mode="json")}
    return EvidenceItem(digest=result_digest(document), produced_at=0, document=document)
