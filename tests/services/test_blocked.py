"""A job that lacks an asset waits, costs no attempt, is shown by the studies above it, and goes on by itself."""

from typing import Any

import pytest
from sqlalchemy import select

from services import accounts, events, jobs, leases, lifecycle
from services.accounts import Principal
from services.db import Database, now
from services.ids import new_id
from services.jobs import Submission
from services.leases import Claim
from services.settings import Settings
from services.states import State
from services.tables import Attempt, Execution, Job

ASSETS = [{"name": "someone/model", "how": "hf download someone/model"}]
DETAIL = "the model someone/model is not here"


@pytest.fixture
def ada(database: Database) -> Principal:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        _, token = accounts.create_key(session, b"k", owner.id, "key", list(accounts.SCOPES))
        return accounts.authenticate(session, b"k", token)


def submit(database: Database, settings: Settings, ada: Principal, seed: int = 0, **more: Any) -> str:
    spec = {"source": "synthetic", "seed": seed}
    with database.write() as session:
        return jobs.submit(session, settings, ada.owner_id, Submission("train.activations", spec, **more))[0].id


def claim(database: Database) -> Claim:
    with database.write(shared=True) as session:
        held = leases.claim(session, "w", "boot", ["train"], ["cpu"], 60)
    assert held is not None
    return held


def block(database: Database, held: Claim) -> None:
    with database.write() as session:
        assert leases.block(session, held.execution_id, held.attempt, DETAIL, ASSETS)


def unblock(database: Database, held: Claim) -> list[str]:
    with database.write() as session:
        return leases.unblock(session, [held.execution_id])


def test_a_blocked_job_waits_without_using_attempts_and_goes_on(
    database: Database, settings: Settings, ada: Principal
) -> None:
    job_id = submit(database, settings, ada)
    for _ in range(5):
        held = claim(database)
        block(database, held)
        with database.read() as session:
            job, execution = session.get_one(Job, job_id), session.get_one(Execution, held.execution_id)
            assert (job.state, job.reason, job.detail) == (State.BLOCKED, "asset.missing", DETAIL)
            assert (execution.assets, execution.lost) == (ASSETS, 0)
            assert leases.blocked(session, ["train"], ["cpu"]) == {held.execution_id: ["someone/model"]}
            assert leases.blocked(session, ["train"], ["cuda"]) == {}
        assert unblock(database, held) == [held.execution_id]
        assert unblock(database, held) == []
    with database.read() as session:
        job, execution = session.get_one(Job, job_id), session.get_one(Execution, held.execution_id)
        assert (job.state, job.reason, execution.assets) == (State.QUEUED, "asset.arrived", None)
        assert set(session.scalars(select(Attempt.outcome))) == {"asset.missing"}
        states = [event.data["state"] for event in events.after(session, job, 0, 100, ["state"])]
        assert states[-3:] == ["running", "blocked", "queued"]


def test_a_blocked_job_can_be_cancelled(database: Database, settings: Settings, ada: Principal) -> None:
    job_id = submit(database, settings, ada)
    held = claim(database)
    block(database, held)
    with database.write() as session:
        assert jobs.cancel(session, ada, job_id).state == State.CANCELLED
        assert session.get_one(Execution, held.execution_id).state == State.CANCELLED
    assert unblock(database, held) == []


def test_an_equal_job_joins_a_blocked_execution(database: Database, settings: Settings, ada: Principal) -> None:
    submit(database, settings, ada)
    held = claim(database)
    block(database, held)
    equal = submit(database, settings, ada)
    with database.read() as session:
        job = session.get_one(Job, equal)
        assert (job.state, job.execution_id) == (State.BLOCKED, held.execution_id)


def study(database: Database, ada: Principal, parent: str | None = None) -> tuple[str, str]:
    """A study that waits, as the child of another if there is one: ids of its job and of its execution."""
    with database.write() as session:
        execution = Execution(
            id=new_id("execution"), digest=new_id(), kind="study.pipeline", queue="control", spec={}, inputs={},
            device="cpu", environment={}, owner_id=ada.owner_id, priority=1, shared=False, state=State.WAITING,
            created_at=now(),
        )  # fmt: skip
        session.add(execution)
        session.flush()
        job = Job(
            id=new_id("job"), owner_id=ada.owner_id, kind="study.pipeline", spec={}, inputs={}, labels=[],
            device="cpu", environment={}, priority=1, reuse=False, private=False, state=State.WAITING,
            execution_id=execution.id, parent_id=parent, name="inner", created_at=now(),
        )  # fmt: skip
        session.add(job)
        return job.id, execution.id


def test_the_studies_above_a_blocked_child_say_so(database: Database, settings: Settings, ada: Principal) -> None:
    outer, outer_execution = study(database, ada)
    inner, inner_execution = study(database, ada, outer_execution)
    child = submit(database, settings, ada)
    with database.write() as session:
        row = session.get_one(Job, child)
        row.parent_id, row.name = inner_execution, "rows"
    held = claim(database)
    block(database, held)
    with database.read() as session:
        shown = [(job.state, job.reason, job.detail) for id in (inner, outer) for job in [session.get_one(Job, id)]]
        inside = f"rows is blocked: {DETAIL}"
        assert shown == [
            (State.WAITING, lifecycle.CHILD_BLOCKED, inside),
            (State.WAITING, lifecycle.CHILD_BLOCKED, f"inner is blocked: {inside}"),
        ]
        noted = events.after(session, session.get_one(Job, outer), 0, 10, ["child"])
        assert [event.data["detail"] for event in noted] == [f"inner is blocked: {inside}"]
    unblock(database, held)
    with database.read() as session:
        assert {session.get_one(Job, id).detail for id in (inner, outer)} == {None}


def test_a_study_names_some_of_its_blocked_children_and_counts_the_others(
    database: Database, settings: Settings, ada: Principal
) -> None:
    outer, execution = study(database, ada)
    children = [submit(database, settings, ada, seed) for seed in range(8)]
    with database.write() as session:
        for number, child in enumerate(children):
            row = session.get_one(Job, child)
            row.parent_id, row.name = execution, f"cell-{number}"
    for _ in children:
        block(database, claim(database))
    with database.read() as session:
        detail = str(session.get_one(Job, outer).detail)
        assert detail.startswith("cell-0, cell-1, cell-2, cell-3, cell-4 are blocked: ")
        assert detail.endswith("; and 3 more")
