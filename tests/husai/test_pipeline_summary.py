from typing import Any

from husai import pipeline_summary
from husai.models import Job


def job(result: dict[str, Any] | None) -> Job:
    return Job.read({"id": "1", "kind": "k", "state": "succeeded", "version": 1, "spec": {}, "result": result})


def test_figures_give_means_with_ranges_and_the_leak_test_in_words() -> None:
    leak = {"operand_randomised_accuracy": 0.0089, "chance": 1 / 113, "passed": True}
    member = {"explained_variance": 0.8, "l0": 16.0, "dead_fraction": 0.0, "drift_from_init": 0.3}
    children = {
        "transformer": job({"test_accuracy": 0.999, "leak": leak}),
        "sae": job({"members": [member, member | {"explained_variance": 0.9}], "converged": False}),
    }
    found = dict(pipeline_summary.lines(children))
    assert found["transformer: accuracy on test pairs"] == "99.90 %"
    assert found["transformer: leak test"] == "passed: 0.89 % with random operands, chance is 0.88 %"
    assert found["SAEs: explained variance (test rows)"] == "0.85  (0.8 to 0.9)"
    assert found["SAEs: active latents per row (L0)"] == "16"
    assert found["SAEs: training converged"] == "no"


def test_stages_that_came_to_nothing_have_no_figures() -> None:
    assert list(pipeline_summary.lines({"transformer": job(None)})) == []
    assert pipeline_summary.leak({"passed": False, "chance": 0.1}).startswith("FAILED")
