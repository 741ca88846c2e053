"""What holds in both modes: every process is killed between every two durable effects, and nothing is lost, doubled or
changed."""

import os
import signal
import time
from typing import Any

from tests.faults.chains import ENDLESS, LAB_ONLY, NEED, RECIPE, chain, disturb, long_run, submit_rows
from tests.faults.keeper import Keeper, failpoints
from tests.servers import running

FAULTS = os.environ.get("HUSAI_FAULTS", "some")
"""How many faults of lab mode are tried: some, each point with one, or all of them; of embedded mode it is all."""
POINTS = [point for point in failpoints() if point not in LAB_ONLY]


def kill_at(service: Keeper, faultless: dict[str, Any], undisturbed: dict[str, Any], point: str) -> None:
    """Kill the process that passes a point: the work comes to the same end."""
    armed = service.arm(point)
    situation = NEED.get(point, "chain")
    if situation == "chain":
        assert chain(service, point) == faultless
    else:
        disturb(service, undisturbed, point, situation)
    service.until(lambda: not armed.exists())
    service.settled()


class Crashes:
    """Tests of one service, which the fixture `service` keeps alive."""

    def test_a_child_killed_too_often_fails_its_job_alone(self, service: Keeper, faultless: dict[str, Any]) -> None:
        saes = long_run(service, "child", ENDLESS)
        for attempt in (1, 2, 3):
            service.until(
                lambda attempt=attempt: (
                    (job := service.job(saes["id"]))["attempt"] == attempt and job["state"] == "running"
                )
            )
            (child,) = service.until(lambda: list(service.supervised()))
            os.killpg(child, signal.SIGKILL)
        job = service.finished(saes["id"])
        assert (job["state"], job["reason"]) == ("failed", "infra.lost")
        assert chain(service, "after-child") == faultless
        service.settled()

    def test_a_supervisor_killed_in_a_matrix_product_leaves_no_child(self, service: Keeper) -> None:
        saes = long_run(service, "orphan")
        (child,) = service.supervised()
        service.holder().kill()
        gone = time.monotonic() + 5
        service.until(lambda: child not in running(), seconds=gone - time.monotonic())
        assert service.finished(saes["id"])["state"] == "succeeded"
        service.settled()

    def test_cancelling_49_of_50_equal_jobs_leaves_the_fiftieth_running(self, service: Keeper) -> None:
        rows = submit_rows(service, "fifty")
        digest = service.finished(rows["id"])["outputs"]["activations"][0]
        spec = {"recipe": {**RECIPE, "tokens": ENDLESS}, "seeds": [0, 1]}
        body = {"kind": "train.sae", "spec": spec, "inputs": {"activations": digest}}
        jobs = [service.post("/v1/jobs", **body)["id"] for _ in range(50)]
        service.until(lambda: service.job(jobs[0])["state"] == "running")
        for job in jobs[:49]:
            assert service.client.post(f"/v1/jobs/{job}:cancel").status_code == 202
        assert {service.job(job)["state"] for job in jobs[:49]} == {"cancelled"}
        last = service.job(jobs[49])
        assert last["state"] == "running"
        service.until(lambda: service.job(jobs[49])["progress"] != last["progress"])
        assert service.post(f"/v1/jobs/{jobs[49]}:cancel")["state"] == "cancelled"
        service.settled()

    def test_50_equal_jobs_make_one_execution_and_50_finished_jobs(self, service: Keeper) -> None:
        rows = submit_rows(service, "equal")
        digest = service.finished(rows["id"])["outputs"]["activations"][0]
        body = {"kind": "train.sae", "spec": {"recipe": RECIPE, "seeds": [7]}, "inputs": {"activations": digest}}
        jobs = [service.post("/v1/jobs", **body)["id"] for _ in range(50)]
        finished = [service.finished(job) for job in jobs]
        assert {job["state"] for job in finished} == {"succeeded"}
        assert len({str(job["outputs"]) for job in finished}) == 1
        assert {job["attempt"] for job in finished} == {1}
        service.settled()

    def test_cancelling_the_last_follower_kills_the_execution(self, service: Keeper) -> None:
        saes = long_run(service, "stop", ENDLESS)
        assert list(service.supervised())
        assert service.post(f"/v1/jobs/{saes['id']}:cancel")["state"] == "cancelled"
        service.settled()
        assert not list(service.supervised())
