"""Whose work is next: by class, then between owners in turn, then by age, whatever else is queued."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, update

from services import accounts, jobs, leases
from services import queue as queues
from services.db import Database
from services.ids import new_id
from services.jobs import Submission
from services.leases import Claim, Failure
from services.settings import Settings
from services.states import State
from services.tables import Execution, Job

Submit = Callable[..., str]


@pytest.fixture
def submit(database: Database, settings: Settings) -> Submit:
    """Submits a job of an owner; returns its id."""

    def job(owner: str, seed: int, priority: str = "batch", device: str = "cpu") -> str:
        with database.write() as session:
            owner_id = accounts.create_owner(session, owner, "researcher").id
            spec = {"source": "synthetic", "seed": seed}
            submission = Submission("train.activations", spec, priority=priority, device=device)
            return jobs.submit(session, settings, owner_id, submission)[0].id

    return job


def claim(database: Database, *devices: str) -> Claim | None:
    with database.write(shared=True) as session:
        return leases.claim(session, "w", "boot", ["train", "stress"], devices or ["cpu"], 60)


def end(database: Database, held: Claim) -> None:
    with database.write() as session:
        failure = Failure(State.FAILED, "error.code", "no")
        assert leases.finish(session, held.execution_id, held.attempt, None, failure)


def served(database: Database, count: int, *, slots: int = 1) -> list[str]:
    """The jobs that a worker with so many slots takes, in order; each ends when its slot is needed."""
    taken: list[Claim] = []
    for number in range(count):
        if number >= slots:
            end(database, taken[number - slots])
        held = claim(database)
        assert held is not None
        taken.append(held)
    return [held.job_id for held in taken]


def test_one_owners_eight_jobs_do_not_hold_up_anothers_first(database: Database, submit: Submit) -> None:
    ada = [submit("ada", seed) for seed in range(8)]
    bob = [submit("bob", seed) for seed in (10, 11)]
    assert served(database, 10) == [ada[0], bob[0], ada[1], bob[1], *ada[2:]]


def test_an_owner_who_comes_late_is_served_before_those_who_were_served(database: Database, submit: Submit) -> None:
    ada = [submit("ada", seed) for seed in range(4)]
    assert served(database, 2) == ada[:2]
    eve = submit("eve", 20)
    with database.write() as session:
        session.execute(update(Execution).where(Execution.state == State.RUNNING).values(state=State.QUEUED))
    held = claim(database)
    assert held is not None
    assert held.job_id == eve


def test_the_fewest_running_go_before_the_longest_waiting(database: Database, submit: Submit) -> None:
    ada = [submit("ada", seed) for seed in range(3)]
    bob = [submit("bob", seed) for seed in (10, 11, 12)]
    first, second = claim(database), claim(database)
    assert first is not None
    assert second is not None
    assert (first.job_id, second.job_id) == (ada[0], bob[0])
    end(database, second)
    assert served(database, 2, slots=2) == [bob[1], ada[1]]


def test_a_class_is_worked_off_before_the_next_whoever_waits_there(database: Database, submit: Submit) -> None:
    late = submit("bob", 1, "backfill")
    ada = [submit("ada", seed, "batch") for seed in (2, 3)]
    urgent = submit("ada", 4, "gate")
    assert served(database, 4) == [urgent, *ada, late]


def test_only_work_for_these_devices_and_of_known_kinds_is_taken(database: Database, submit: Submit) -> None:
    gpu = submit("ada", 1, "gate", "cuda")
    unknown = submit("ada", 2, "interactive")
    known = submit("ada", 3, "batch")
    with database.write() as session:
        execution_id = session.get_one(Job, unknown).execution_id
        session.execute(update(Execution).where(Execution.id == execution_id).values(kind="train.of_tomorrow"))
    assert served(database, 1) == [known]
    assert claim(database) is None
    held = claim(database, "cpu", "cuda")
    assert held is not None
    assert held.job_id == gpu


def test_a_locked_execution_is_passed_over_and_sqlite_waits_for_its_writer(database: Database, submit: Submit) -> None:
    first, second = submit("ada", 1), submit("ada", 2)
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write(shared=True) as session:
            held = leases.claim(session, "v", "boot", ["train"], ["cpu"], 60)
            assert held is not None
            assert held.job_id == first
            locked.set()
            over.wait(2)
            over.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    held = claim(database)
    waited = over.is_set()
    over.set()
    holder.join()
    assert held is not None
    assert held.job_id == second
    assert waited == database.sqlite


def test_however_much_is_queued_an_owner_has_one_head_in_a_class(database: Database, submit: Submit) -> None:
    job_id = submit("ada", 0)
    with database.write() as session:
        first = session.get_one(Execution, session.get_one(Job, job_id).execution_id)
        columns = [column.name for column in Execution.__table__.columns]
        row: dict[str, Any] = {name: getattr(first, name) for name in columns} | {"shared": False}
    for _ in range(4):
        with database.write() as session:
            session.execute(insert(Execution), [row | {"id": new_id("execution")} for _ in range(500)])
    with database.read() as session:
        heads = list(queues.heads(session, ["train", "stress", "control"], ["cpu"]))
        assert [head.id for head in heads] == [first.id]
        assert queues.oldest(session, ["train"], ["cpu"]) == first.id
        assert list(queues.heads(session, [], ["cpu"])) == []
