"""Every process is killed between every two durable effects, and nothing is lost, doubled or changed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.keeper import Keeper, failpoints

RECIPE = {"d_sae": 64, "k": 4, "tokens": 40_000, "batch_size": 256}
LONG, ENDLESS = 1_000_000, 50_000_000
WORLD = {"rows": 2048, "n_features": 48, "d_model": 24}
NEED = {
    "cancel.before_commit": "cancel",
    "checkpoint.before_commit": "drain",
    "checkpoint.committed": "drain",
    "hand_back.before_commit": "drain",
    "hand_back.committed": "drain",
    "give_up.before_commit": "kill",
    "give_up.committed": "kill",
    "reap.before_commit": "lose",
    "reap.committed": "lose",
    "renew.committed": "long",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with Keeper(tmp_path_factory.mktemp("faults") / "home", HUSAI_LEASE_SECONDS="2") as keeper:
        yield keeper


@pytest.fixture(scope="module")
def faultless(service: Keeper) -> dict[str, Any]:
    return chain(service, "faultless")


@pytest.fixture(scope="module")
def undisturbed(service: Keeper) -> dict[str, Any]:
    rows = submit_rows(service, "undisturbed")
    return outcome(service.finished(submit_saes(service, "undisturbed", rows, LONG)["id"]))


def chain(service: Keeper, key: str, tokens: int = 40_000) -> dict[str, Any]:
    """Activations, then SAEs: what both made, by digest."""
    rows = submit_rows(service, key)
    saes = submit_saes(service, key, rows, tokens)
    return {job["kind"]: outcome(service.finished(job["id"])) for job in (rows, saes)}


def submit_rows(service: Keeper, key: str) -> dict[str, Any]:
    spec = {"source": "synthetic", "world": WORLD}
    return service.post("/v1/jobs", f"{key}-rows", kind="train.activations", spec=spec, reuse="never")


def submit_saes(service: Keeper, key: str, rows: dict[str, Any], tokens: int) -> dict[str, Any]:
    spec = {"recipe": {**RECIPE, "tokens": tokens}, "seeds": [0, 1]}
    inputs = {"activations": {"job": rows["id"], "output": "activations"}}
    return service.post("/v1/jobs", f"{key}-saes", kind="train.sae", spec=spec, inputs=inputs, reuse="never")


def outcome(job: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on crashes: the state and every artifact but the manifest."""
    outputs = {name: digests for name, digests in job["outputs"].items() if name != "manifest"}
    return {"state": job["state"], "result": job["result"], "outputs": outputs}


@pytest.mark.parametrize("point", failpoints())
def test_a_kill_at_every_point_changes_nothing(
    service: Keeper, faultless: dict[str, Any], undisturbed: dict[str, Any], point: str
) -> None:
    armed = service.arm(point)
    situation = NEED.get(point, "chain")
    if situation == "chain":
        assert chain(service, point) == faultless
    else:
        disturb(service, undisturbed, point, situation)
    service.until(lambda: not armed.exists())
    service.settled()


def disturb(service: Keeper, undisturbed: dict[str, Any], point: str, situation: str) -> None:
    """Bring about what leads past a point that an ordinary run never passes."""
    rows = submit_rows(service, point)
    service.finished(rows["id"])
    saes = submit_saes(service, point, rows, ENDLESS if situation == "cancel" else LONG)
    service.until(lambda: service.job(saes["id"])["progress"])
    if situation == "cancel":
        service.until(lambda: service.client.post(f"/v1/jobs/{saes['id']}:cancel").status_code in (202, 409))
        assert service.finished(saes["id"])["state"] == "cancelled"
        return
    if situation == "drain":
        service.processes["worker"].send_signal(signal.SIGTERM)
    elif situation == "kill":
        (child,) = service.supervised()
        os.killpg(child, signal.SIGKILL)
    elif situation == "lose":
        service.processes["worker"].kill()
    assert outcome(service.finished(saes["id"])) == undisturbed


def test_a_child_killed_too_often_fails_its_job_alone(service: Keeper, faultless: dict[str, Any]) -> None:
    rows = submit_rows(service, "child")
    service.finished(rows["id"])
    saes = submit_saes(service, "child", rows, ENDLESS)
    for attempt in (1, 2, 3):
        service.until(
            lambda attempt=attempt: (job := service.job(saes["id"]))["attempt"] == attempt and job["state"] == "running"
        )
        (child,) = service.until(lambda: list(service.supervised()))
        os.killpg(child, signal.SIGKILL)
    job = service.finished(saes["id"])
    assert (job["state"], job["reason"]) == ("failed", "infra.lost")
    assert chain(service, "after-child") == faultless
    service.settled()


def test_a_supervisor_killed_in_a_matrix_product_leaves_no_child(service: Keeper) -> None:
    rows = submit_rows(service, "orphan")
    service.finished(rows["id"])
    saes = submit_saes(service, "orphan", rows, LONG)
    service.until(lambda: service.job(saes["id"])["progress"])
    (child,) = service.supervised()
    service.processes["worker"].kill()
    gone = time.monotonic() + 5
    service.until(lambda: not Path(f"/proc/{child}").exists(), seconds=gone - time.monotonic())
    assert service.finished(saes["id"])["state"] == "succeeded"
    service.settled()


def test_cancelling_49_of_50_equal_jobs_leaves_the_fiftieth_running(service: Keeper) -> None:
    rows = submit_rows(service, "fifty")
    digest = service.finished(rows["id"])["outputs"]["activations"][0]
    spec = {"recipe": {**RECIPE, "tokens": 3 * LONG}, "seeds": [0, 1]}
    body = {"kind": "train.sae", "spec": spec, "inputs": {"activations": digest}}
    jobs = [service.post("/v1/jobs", **body)["id"] for _ in range(50)]
    service.until(lambda: service.job(jobs[0])["state"] == "running")
    for job in jobs[:49]:
        assert service.client.post(f"/v1/jobs/{job}:cancel").status_code == 202
    assert service.job(jobs[49])["state"] == "running"
    assert service.finished(jobs[49])["state"] == "succeeded"
    assert {service.job(job)["state"] for job in jobs[:49]} == {"cancelled"}
    service.settled()


def test_50_equal_jobs_make_one_execution_and_50_finished_jobs(service: Keeper) -> None:
    rows = submit_rows(service, "equal")
    digest = service.finished(rows["id"])["outputs"]["activations"][0]
    body = {"kind": "train.sae", "spec": {"recipe": RECIPE, "seeds": [7]}, "inputs": {"activations": digest}}
    jobs = [service.post("/v1/jobs", **body)["id"] for _ in range(50)]
    finished = [service.finished(job) for job in jobs]
    assert {job["state"] for job in finished} == {"succeeded"}
    assert len({str(job["outputs"]) for job in finished}) == 1
    assert {job["attempt"] for job in finished} == {1}
    service.settled()


def test_cancelling_the_last_follower_kills_the_execution(service: Keeper) -> None:
    rows = submit_rows(service, "stop")
    service.finished(rows["id"])
    saes = submit_saes(service, "stop", rows, ENDLESS)
    service.until(lambda: service.job(saes["id"])["progress"])
    assert list(service.supervised())
    assert service.post(f"/v1/jobs/{saes['id']}:cancel")["state"] == "cancelled"
    service.settled()
    assert not list(service.supervised())
