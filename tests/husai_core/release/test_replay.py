"""The published decisions, replayed from the published figures."""

from __future__ import annotations

from typing import Any

import pytest

from husai_core.release.replay import gates

REQUIRED: dict[str, Any] = {"require_transcoder": True, "require_ood": True, "require_external": True}
BASE: dict[str, Any] = {
    "min_trained_random_delta": 0.0,
    "min_trained_random_lcb": 0.0,
    "min_transcoder_delta": 0.0,
    "max_ood_drop": 0.1,
    "min_external_delta": 0.0,
    **REQUIRED,
}
JOINT: dict[str, Any] = {
    **BASE,
    "min_saebench_delta": 0.0,
    "min_cebench_delta": 0.0,
    "min_saebench_delta_lcb": 0.0,
    "min_cebench_delta_lcb": 0.0,
    "use_external_lcb": True,
    "external_mode": "joint",
}
RANDOM = {"trained_random_delta": 0.0012296229600906594, "trained_random_delta_lcb": 6.183199584486321e-05}
RELU_SEED_42: dict[str, float | None] = {
    **RANDOM,
    "transcoder_delta": -0.002227966984113039,
    "ood_drop": 0.01445406161520213,
    "external_delta": -0.017257680751151527,
}
CYCLE_4: dict[str, float | None] = {
    **RANDOM,
    "transcoder_delta": 0.004916101694107056,
    "ood_drop": 0.020994556554025268,
    "external_delta": -0.04478959689939781,
    "saebench_delta": -0.04478959689939781,
    "saebench_delta_ci95_low": -0.04478959689939781,
    "cebench_interp_delta_vs_baseline": -40.467037470119465,
    "cebench_interp_delta_vs_baseline_ci95_low": -40.467037470119465,
    "cebench_interpretability_max": 7.4845741154976055,
}


def test_run_20260214T225029Z() -> None:
    assert gates(RELU_SEED_42, BASE) == {
        "random_model": True,
        "transcoder": False,
        "ood": True,
        "external": False,
        "pass_all": False,
    }


def test_cycle_4() -> None:
    assert gates(CYCLE_4, JOINT) == {
        "random_model": True,
        "transcoder": True,
        "ood": True,
        "external": False,
        "external_saebench": False,
        "external_cebench": False,
        "pass_all": False,
    }


def test_first_run_without_stress_results() -> None:
    outcome = gates({**RANDOM, "transcoder_delta": None, "ood_drop": None, "external_delta": -0.13284}, BASE)
    assert outcome == {
        "random_model": True,
        "transcoder": False,
        "ood": False,
        "external": False,
        "pass_all": False,
    }


def test_missing_figures_pass_only_where_they_were_not_required() -> None:
    lax = BASE | dict.fromkeys(REQUIRED, False)
    assert gates(RANDOM, lax)["pass_all"]
    assert not gates({}, lax)["random_model"]


@pytest.mark.parametrize(
    ("figure", "gate"),
    [
        ("trained_random_delta_lcb", "random_model"),
        ("saebench_delta_ci95_low", "external_saebench"),
        ("cebench_interp_delta_vs_baseline_ci95_low", "external_cebench"),
    ],
)
def test_joint_mode_reads_lower_bounds(figure: str, gate: str) -> None:
    good = {**CYCLE_4, "saebench_delta_ci95_low": 0.0, "cebench_interp_delta_vs_baseline_ci95_low": 0.0}
    assert gates(good, JOINT)["pass_all"]
    outcome = gates({**good, figure: -1e-9}, JOINT)
    assert not outcome[gate]
    assert not outcome["pass_all"]


def test_a_threshold_lowered_in_the_file_is_honoured() -> None:
    lowered = {**JOINT, "min_cebench_delta_lcb": -41.0, "min_saebench_delta_lcb": -0.05}
    assert gates(CYCLE_4, lowered)["pass_all"]
