"""Seeded kills of everything while work goes on: a few here, a thousand in `make soak`."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import func, select

from services.states import LIVE
from services.tables import Attempt, Event, Execution, Job
from tests.faults.chains import NEED, chain
from tests.faults.keeper import failpoints
from tests.faults.lab import WORKERS, Lab
from tests.servers import pairs

KILLS = int(os.environ.get("HUSAI_SOAK_KILLS", "5"))
SEED = int(os.environ.get("HUSAI_SOAK_SEED", "0"))
STREAMS = 3
VICTIMS = (*WORKERS, "child", "control", "api", "redis", "postgres")
POINTS = [point for point in failpoints() if point not in NEED]
"""Points that ordinary work passes; there the process that passes dies."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = {"HUSAI_LEASE_SECONDS": "5", "HUSAI_MAX_ATTEMPTS": "1000", "HUSAI_WARM": "none"}
    with Lab(tmp_path_factory.mktemp("lab") / "home", pairs()[0], **settings) as lab:
        lab.patience = 900  # a job may be killed many times in a row
        yield lab


@pytest.mark.timeout(300 + 10 * KILLS)
def test_nothing_is_lost_while_everything_dies(
    service: Lab, faultless: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    start, over = time.monotonic(), []

    def stream(number: int) -> int:
        done = 0
        while not over:
            assert chain(service, f"soak-{number}-{done}") == faultless
            done += 1
        return done

    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(stream, number) for number in range(STREAMS)]
        killed = kill_at_random(service, random.Random(SEED), streams)
        over.append(True)
        done = sum(stream.result() for stream in streams)
    service.settled()
    with capsys.disabled():
        print(f"\n{KILLS} kills (seed {SEED}) in {time.monotonic() - start:.0f} s: {dict(sorted(killed.items()))}")
        print(f"{done} chains of two jobs, all equal to the undisturbed one; {summary(service)}")
    assert done >= STREAMS


def kill_at_random(service: Lab, chance: random.Random, streams: list[Future[int]]) -> Counter[str]:
    """Kill one thing after another, at a moment or at a point in the code; each is back before the next.

    It ends early where a stream of work has failed.
    """
    killed: Counter[str] = Counter()
    for _ in range(KILLS):
        if any(stream.done() for stream in streams):
            break
        if chance.random() < 0.5:
            victim = chance.choice(VICTIMS)
            service.kill(victim)
        else:
            victim, point = "at a point", service.arm(chance.choice(POINTS))
            with suppress(AssertionError):
                service.until(lambda point=point: not point.exists(), seconds=20)
            point.unlink(missing_ok=True)
        killed[victim] += 1
        service.until(lambda: all(server.alive for server in service.servers.values()))
        time.sleep(chance.uniform(0.0, 0.5))
        service.until(lambda: service.client.get("/healthz").status_code == 200)
    return killed


def summary(service: Lab) -> str:
    """What the database says when all is over, after checking that nothing is unfinished or doubled."""
    with service.database.read() as session:
        assert session.scalar(select(func.count()).where(Job.state.in_(LIVE))) == 0
        ends = Counter(
            row.job_id
            for row in session.scalars(select(Event).where(Event.type == "state", Event.job_id.is_not(None)))
            if row.data["state"] in ("succeeded", "failed", "cancelled", "timed_out")
        )
        assert set(ends.values()) == {1}
        assert set(ends) == set(session.scalars(select(Job.id)))
        attempts = session.scalar(select(func.count()).select_from(Attempt))
        executions = session.scalar(select(func.count()).select_from(Execution))
    return f"{executions} executions, {attempts} attempts, each job ended once"
