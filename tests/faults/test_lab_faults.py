"""What can go wrong between the processes of a lab: others die, a worker stalls, messages are lost, doubled or late."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle, product
from typing import Any

import pytest
from sqlalchemy import select

from services.settings import Settings
from services.tables import Worker
from tests.faults.cases import FAULTS
from tests.faults.chains import NEED, RECIPE, chain, disturb, long_run, outcome, submit_rows
from tests.faults.keeper import failpoints
from tests.faults.lab import VICTIMS, WORKERS, Lab
from tests.servers import pairs
from worker.celery_worker import WAKE_UP, create_app

CASES = {
    "some": list(zip(failpoints()[::4], VICTIMS, strict=False)),
    "each": list(zip(failpoints(), cycle(VICTIMS), strict=False)),
    "all": list(product(failpoints(), VICTIMS)),
}[FAULTS]
"""Failpoints with the process that dies while another stands there."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = {"HUSAI_LEASE_SECONDS": "2", "HUSAI_MAX_ATTEMPTS": "20"}
    with Lab(tmp_path_factory.mktemp("lab") / "home", pairs()[-1], **settings) as lab:
        yield lab


@pytest.mark.parametrize(("point", "victim"), CASES)
def test_whoever_dies_while_a_process_stands_at_a_point_nothing_changes(
    service: Lab, faultless: dict[str, Any], undisturbed: dict[str, Any], point: str, victim: str
) -> None:
    service.arm(point, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(pass_by, service, undisturbed, point, f"{point}-{victim}")
        service.until(lambda: point not in service.armed_points())
        stopped = service.until(service.stopped)
        service.kill(victim if victim != "child" or list(service.supervised()) else "worker")
        service.until(lambda: all(server.alive for server in service.servers.values()))
        for pid in stopped:
            with suppress(ProcessLookupError):  # it may be the victim
                os.kill(pid, signal.SIGCONT)
        assert work.result() in (faultless, None)
    service.settled()


def pass_by(service: Lab, undisturbed: dict[str, Any], point: str, key: str) -> dict[str, Any] | None:
    """Lead a process past a point; what an ordinary run gave, or None after a run that compared its outcome itself."""
    if point == "sweep.sent":
        return unsent(service, key)
    if point not in NEED:
        return chain(service, key)
    disturb(service, undisturbed, key, NEED[point])
    return None


def unsent(service: Lab, key: str) -> dict[str, Any]:
    """A chain whose first messages are lost while nobody can take them."""
    with silence(service):
        rows = submit_rows(service, key)
        service.until(service.outbox_empty)
        service.redis.flushall()
        service.until(lambda: service.redis.llen("husai:train") or not service.armed_points())
    assert service.finished(rows["id"])["state"] == "succeeded"
    return chain(service, f"{key}-after")


class silence:
    """Both workers are stopped, so that nobody takes a message."""

    def __init__(self, service: Lab) -> None:
        self.processes = [service.processes[name] for name in WORKERS]

    def __enter__(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)


def test_a_worker_stopped_past_its_lease_has_its_write_refused_and_counted(
    service: Lab, undisturbed: dict[str, Any]
) -> None:
    refused = stale_writes(service)
    job = long_run(service, "stalled")
    holder = service.holder()
    holder.send_signal(signal.SIGSTOP)
    try:
        done = service.finished(job["id"])
    finally:
        holder.send_signal(signal.SIGCONT)
    assert outcome(done) == undisturbed
    assert done["attempt"] == 2
    service.until(lambda: stale_writes(service) == refused + 1)
    service.settled()
    assert outcome(service.job(job["id"])) == undisturbed


def stale_writes(service: Lab) -> float:
    """How many writes of attempts that were no longer held have been refused."""
    lines = service.client.get("/metrics").text.splitlines()
    counts = [line.split()[1] for line in lines if line.startswith("husai_stale_writes_rejected_total ")]
    return float(counts[0]) if counts else 0.0


def test_a_worker_told_to_stop_hands_its_job_to_another(service: Lab, undisturbed: dict[str, Any]) -> None:
    job = long_run(service, "drained")
    holder = service.holder()
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(30) == 0
    assert outcome(service.finished(job["id"])) == undisturbed
    events = service.client.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["items"]
    history = [(event["type"], event["data"].get("state"), event["data"].get("reason")) for event in events]
    handed_back = history.index(("state", "queued", "drained"))
    assert "checkpoint" in [type for type, *_ in history[:handed_back]]
    assert [event["data"]["number"] for event in events if event["type"] == "attempt"] == [1, 2]
    service.settled()


def test_messages_that_are_lost_change_nothing(service: Lab, faultless: dict[str, Any]) -> None:
    over = threading.Event()

    def empty() -> None:
        until = time.monotonic() + 3
        while time.monotonic() < until and not over.wait(0.02):
            service.redis.flushall()

    thread = threading.Thread(target=empty)
    thread.start()
    assert chain(service, "lost-messages") == faultless
    over.set()
    thread.join()
    service.settled()


def test_messages_that_are_doubled_or_sent_for_nothing_change_nothing(service: Lab, faultless: dict[str, Any]) -> None:
    settings = Settings(
        home=service.home / "ringer", database_url=service.environment["HUSAI_DATABASE_URL"],
        broker_url=service.environment["HUSAI_BROKER_URL"],
    )  # fmt: skip
    app = create_app(settings)
    for _ in range(50):
        for queue in ("train", "stress", "control"):
            app.send_task(WAKE_UP, queue=queue)
    assert chain(service, "doubled-messages") == faultless
    service.settled()


def test_messages_that_are_late_change_nothing(service: Lab, faultless: dict[str, Any]) -> None:
    service.redis.client_pause(2000)
    assert chain(service, "late-messages") == faultless
    service.settled()


def test_jobs_run_while_the_broker_stays_away(service: Lab, faultless: dict[str, Any]) -> None:
    service.down.add("redis")
    service.servers["redis"].kill()
    try:
        assert chain(service, "no-broker") == faultless
    finally:
        service.down.clear()
    service.settled()


def test_jobs_outlast_an_artifact_store_that_is_away(service: Lab, faultless: dict[str, Any]) -> None:
    store, elsewhere = service.home / "artifacts", service.home / "elsewhere"
    store.rename(elsewhere)
    store.write_text("not a folder")
    rows = [submit_rows(service, f"no-store-{number}")["id"] for number in range(3)]
    service.until(lambda: unfit(service))
    store.unlink()
    elsewhere.rename(store)
    assert [outcome(service.finished(row)) for row in rows] == [faultless["train.activations"]] * 3
    service.settled()


def unfit(service: Lab) -> list[str]:
    """The problems of the workers that claim nothing."""
    with service.database.read() as session:
        return [problem for problem in session.scalars(select(Worker.problem)) if problem]


def test_training_that_diverges_says_so(service: Lab) -> None:
    rows = submit_rows(service, "diverging")
    spec = {"recipe": {**RECIPE, "lr": 1e30}, "seeds": [0]}
    inputs = {"activations": {"job": rows["id"], "output": "activations"}}
    job = service.finished(service.post("/v1/jobs", kind="train.sae", spec=spec, inputs=inputs)["id"])
    assert (job["state"], job["reason"], job["attempt"]) == ("failed", "error.input", 1)
    assert "diverged" in job["detail"]
    events = service.client.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"})
    json.loads(events.text, parse_constant=pytest.fail)
