"""A pipeline's data as a report sees it, with one stage of every kind and results of the real shape."""

import random
from itertools import combinations

from api.report_data import ReportData, Stage

SEEDS = [0, 1, 2, 3, 4]
CANDIDATE = "9f2c" + "7" * 60


def digest(name: str) -> str:
    return random.Random(name).randbytes(32).hex()


def estimate(value, half=None):
    low, high = (None, None) if half is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "n": 5, "unit": "seed", "confidence": 0.95, "method": "jackknife"}


def manifest(name: str) -> dict:
    return {
        "format": "husai-manifest/1",
        "kind": name,
        "seeds": {"seeds": SEEDS} if name == "sae" else {"seed": 0},
        "digest": digest(name),
        "git": {"commit": "4be1f0c2" * 5, "dirty": False},
        "capability": {
            "device": "cpu",
            "threads": 1 if name != "gate" else 2,
            "python": "3.11.9",
            "platform": "Linux-x86_64",
            "libraries": {"torch": "2.13.0", "numpy": "2.4.1", "scipy": "1.17.0"},
            "lock": digest("lock"),
            "environment": digest("environment"),
            "blas": {"torch": [], "numpy": "scipy-openblas 0.3.30"},
            "cpu": {"model": "AMD EPYC 7B13", "capability": "AVX2"},
            "cuda": None,
        },
        "started_at": "2026-11-23T07:30:00.000+00:00",
        "wall_seconds": 12.3,
    }


def rule(name, title, kind, statistic, op, threshold, figure, outcome, reason, settle=None):
    return {
        "name": name, "title": title, "evidence": kind, "evidence_digest": digest(kind), "statistic": statistic,
        **{key: figure[key] for key in ("value", "low", "high")}, "bound": "low" if op == ">=" else "high", "op": op,
        "threshold": threshold, "verdict": outcome, "reason": reason, "settle": settle,
    }  # fmt: skip


def rules() -> list[dict]:
    none = estimate(None)
    return [
        rule("stability", "Do other seeds find the same features, beyond the larger of the chance levels?",
             "stress.trained_vs_random", "pwmcc_excess", ">=", 0.05, estimate(0.412, 0.021), "pass",
             "the low end 0.391 is at least 0.05"),
        rule("transcoder", "Is the SAE about as stable as a transcoder trained on the same inputs?",
             "stress.transcoder", "sae_minus_transcoder", ">=", -0.05, estimate(-0.03, 0.04), "inconclusive",
             "the interval [-0.07, 0.01] contains -0.05", "about 14 seeds in all for power 0.8"),
        rule("ood.reconstruction", "Does reconstruction survive a shift of the domain?", "stress.ood",
             "explained_variance_drop", "<=", 0.1, estimate(0.213, 0.02), "fail", "the high end 0.233 is above 0.1"),
        rule("ood.probes", "Do probes on the features lose no more under the shift than probes on the raw activations?",
             "stress.ood", "probe_accuracy_drop_excess", "<=", 0.1, estimate(0.031, 0.03), "pass",
             "the high end 0.061 is at most 0.1"),
        rule("untrained_model", "Is the overlap higher than for SAEs on an untrained network (Heap et al. 2025)?",
             "stress.untrained_model", "trained_minus_untrained", ">=", 0.02, estimate(0.352, 0.03), "pass",
             "the low end 0.322 is at least 0.02"),
        rule("external.saebench", "Do sparse probes on the features match probes on the model itself (SAEBench)?",
             "benchmark.saebench", "best_minus_llm_auc", ">=", 0, none, "inconclusive",
             "there is no result of benchmark.saebench", "run benchmark.saebench on this candidate"),
    ]  # fmt: skip


def gate_result() -> dict:
    control = {"artifact": digest("good"), "result_digest": digest("good result"), "statistic": "pwmcc_excess"}
    return {
        "verdict": "fail",
        "policy": "strict",
        "policy_digest": digest("strict"),
        "candidate": CANDIDATE,
        "as_of": "2026-11-23T07:40:00Z",
        "reasons": ["ood.reconstruction: the high end 0.233 is above 0.1"],
        "rules": rules(),
        "self_test": {
            "good": {**control, "value": 0.51, "low": 0.48, "high": 0.54, "verdict": "pass", "measured": True,
                     "reason": "the low end 0.48 is at least 0.05"},
            "bad": {**control, "value": 0.004, "low": -0.01, "high": 0.02, "verdict": "fail", "measured": True,
                    "reason": "the high end 0.02 is below 0.05"},
            "passed": True,
            "reason": "the gate tells its controls apart",
        },
        "evidence": [
            {"digest": digest(kind), "kind": kind, "produced_at": 1_795_418_500.0}
            for kind in sorted(KINDS.values())
            if kind.startswith("stress.")
        ],
        "engine": 2,
    }  # fmt: skip


def member(rng: random.Random, seed: int) -> dict:
    return {
        "seed": seed,
        "explained_variance": rng.gauss(0.94, 0.004),
        "normalised_mse": rng.gauss(0.05, 0.002),
        "l0": 16.0,
        "dead_fraction": rng.random() * 0.03,
        "drift_from_init": rng.gauss(0.31, 0.02),
        "converged": seed != 3,
    }


def members(rng: random.Random) -> list[dict]:
    return [member(rng, seed) for seed in SEEDS]


def matrix(rng: random.Random, mean: float) -> list[list[float]]:
    found = [[1.0] * len(SEEDS) for _ in SEEDS]
    for i, j in combinations(range(len(SEEDS)), 2):
        found[i][j] = found[j][i] = rng.gauss(mean, 0.02)
    return found


def evidence(**statistics: dict) -> dict:
    return {"subject": [CANDIDATE], "converged": False, "leaks_label": False, "seeds": SEEDS, "statistics": statistics}


def stability_result(rng: random.Random) -> dict:
    statistics = {"explained_variance": estimate(0.94, 0.004), "drift_from_init": estimate(0.31, 0.01)}
    chance = {"pwmcc": 0.28, "mmcs_signed": 0.26, "pw_mcc": 0.19, "shared_fraction_0_7": 0.0, "activation_mcc": 0.1}
    for name, null in chance.items():
        for over in ("", "_alive"):
            statistics |= {
                f"{name}{over}": estimate(0.71, 0.021),
                f"{name}{over}_gaussian_null": estimate(null, 0.001),
                f"{name}{over}_shuffled_null": estimate(null + 0.02, 0.006),
                f"{name}{over}_covariance_null": estimate(null + 0.05, 0.006),
                f"{name}{over}_excess": estimate(0.69 - null, 0.022),
            }
    return evidence(**statistics) | {
        "pairs": matrix(rng, 0.71),
        "matrices": {"pwmcc": matrix(rng, 0.71)},
        "members": members(rng),
        "controls": {
            name: {"matrices": {"pwmcc": matrix(rng, 0.3)}, "members": members(rng)}
            for name in ("shuffled", "covariance")
        },
    }


def transcoder_result(rng: random.Random) -> dict:
    def arm(mean: float) -> dict:
        return {
            "pairs": matrix(rng, mean),
            "control_pairs": matrix(rng, 0.3),
            "members": members(rng),
            "control_members": members(rng),
        }

    figures = evidence(
        sae_pwmcc=estimate(0.71, 0.02),
        sae_pwmcc_gaussian_null=estimate(0.28, 0.001),
        sae_pwmcc_shuffled_null=estimate(0.3, 0.004),
        sae_excess=estimate(0.41, 0.02),
        transcoder_pwmcc=estimate(0.74, 0.02),
        transcoder_pwmcc_gaussian_null=estimate(0.28, 0.001),
        transcoder_pwmcc_shuffled_null=estimate(0.3, 0.004),
        transcoder_excess=estimate(0.44, 0.03),
        sae_minus_transcoder=estimate(-0.03, 0.04),
    )
    hooks = {"input_hook": "blocks.0.hook_resid_mid", "output_hook": "blocks.0.hook_mlp_out"}
    return figures | hooks | {"sae": arm(0.71), "transcoder": arm(0.74)}


def ood_result(rng: random.Random) -> dict:
    def domains(inside: float, outside: float) -> dict:
        inside, outside = min(1.0, rng.gauss(inside, 0.01)), min(1.0, rng.gauss(outside, 0.02))
        return {"id": inside, "ood": outside, "unmirrored": outside - 0.02}

    figures = evidence(
        explained_variance_id=estimate(0.94, 0.004),
        explained_variance_ood=estimate(0.727, 0.02),
        explained_variance_drop=estimate(0.213, 0.02),
        probe_accuracy_id=estimate(0.93, 0.02),
        probe_accuracy_ood=estimate(0.73, 0.05),
        probe_accuracy_drop=estimate(0.2, 0.05),
        probe_accuracy_drop_excess=estimate(0.031, 0.03),
        candidate_explained_variance_ood=estimate(0.92, 0.01),
    )
    return figures | {
        "p": 113,
        "threshold": 57,
        "rows": {"train": 4509, "validation": 644, "id": 1288, "ood": 6328, "unmirrored": 3136},
        "explained_variance": [domains(0.94, 0.727) for _ in SEEDS],
        "probe_accuracy": [domains(0.93, 0.73) for _ in SEEDS],
        "raw_probe_accuracy": domains(0.97, 0.8),
        "transformer_accuracy": domains(0.99, 0.98),
        "members": members(rng),
    }


def untrained_result(rng: random.Random) -> dict:
    statistics = {"pwmcc_gaussian_null": estimate(0.28, 0.001)}
    for name in ("pwmcc", "pwmcc_alive", "pw_mcc", "activation_mcc"):
        difference = "trained_minus_untrained" if name == "pwmcc" else f"{name}_trained_minus_untrained"
        statistics |= {
            f"{name}_trained": estimate(0.71, 0.02),
            f"{name}_untrained": estimate(0.358, 0.01),
            difference: estimate(0.352, 0.03),
        }
    return evidence(**statistics) | {
        "pairs": matrix(rng, 0.71),
        "untrained_pairs": matrix(rng, 0.358),
        "effective_rank": 31.2,
        "untrained_effective_rank": 77.4,
        "untrained_members": members(rng),
    }


def transformer_result() -> dict:
    curve = [
        {
            "step": step,
            "train_loss": 4.7 * 2.7 ** (-step / 300) + 1e-4,
            "train_accuracy": 1 - 0.99 * 2.7 ** (-step / 300),
            "validation_loss": 4.9 / (1 + (step / 4000) ** 4),
            "validation_accuracy": min(1.0, 0.01 + (step / 9000) ** 3),
        }
        for step in range(100, 12000, 100)
    ]
    leak = {
        "accuracy": 0.998,
        "operand_randomised_accuracy": 0.0086,
        "answer_randomised_accuracy": 0.998,
        "chance": 1 / 113,
        "passed": True,
    }
    losses = {"test_loss": 0.011, "validation_loss": 0.012, "train_loss": 1e-4}
    accuracies = {"test_accuracy": 0.998, "validation_accuracy": 0.998, "train_accuracy": 1.0}
    run = {"grokking_step": 8900, "steps": 12000, "stopped_early": False, "leaks_label": False}
    return {**losses, **accuracies, **run, "leak": leak, "curve": curve}


def results() -> dict[str, dict]:
    rng = random.Random(0)
    curves = [
        {"tokens": t, "normalised_mse": [0.05 + rng.gauss(0.5, 0.02) * 2.7 ** (-t / 3e5) for _ in SEEDS]}
        for t in range(20_000, 2_000_001, 20_000)
    ]
    rows = {"train": 8938, "validation": 1277, "test": 2554}
    return {
        "transformer": transformer_result(),
        "activations": {
            "n_rows": 12769,
            "d_model": 128,
            "effective_rank": 31.2,
            "mean_norm": 9.1,
            "rows_by_split": rows,
            "leaks_label": False,
            "hooks": [
                {"hook_name": "blocks.0.hook_resid_post", "d_model": 128, "effective_rank": 31.2, "mean_norm": 9.1}
            ],
        },
        "sae": {
            "members": [VARIANT | one for one in members(rng)],
            "curves": curves,
            "converged": False,
        },
        "stability": stability_result(rng),
        "transcoder": transcoder_result(rng),
        "ood": ood_result(rng),
        "untrained": untrained_result(rng),
        "gate": gate_result(),
    }


KINDS = {
    "transformer": "train.transformer", "activations": "train.activations", "sae": "train.sae",
    "stability": "stress.trained_vs_random", "transcoder": "stress.transcoder", "ood": "stress.ood",
    "untrained": "stress.untrained_model", "gate": "release.gate",
}  # fmt: skip
VARIANT = {"variant": 0, "architecture": "topk", "k": 16, "l1": None, "target_l0": None}
SPECS = {
    "transformer": {"p": 113, "seed": 0},
    "activations": {"hook_name": "blocks.0.hook_resid_post", "position": "answer", "source": "model"},
    "sae": {"recipe": {"architecture": "topk", "d_sae": 512, "k": 16}, "seeds": SEEDS},
}


def sample() -> ReportData:
    stages = {
        name: Stage(
            name=name,
            kind=kind,
            job=f"job_{name}",
            state="succeeded",
            spec=SPECS.get(name, {}),
            inputs={"saes": [digest(f"sae {seed}") for seed in SEEDS]} if kind.startswith("stress.") else {},
            outputs={"result": [digest(f"{name} result")], "manifest": [digest(f"{name} manifest")]},
            result=results()[name],
            manifest=manifest(name),
        )
        for name, kind in KINDS.items()
    }
    floors = [{"name": "lowest explained variance", "value": 0.936, "floor": 0.7}]
    pipeline = Stage("study.pipeline", "study.pipeline", "job_01jd3k9x2m", "succeeded", result={"floors": floors})
    return ReportData(pipeline, stages, 1_795_418_000.0, 1_795_418_900.0, "dec_01jd3m77qa", 12)
