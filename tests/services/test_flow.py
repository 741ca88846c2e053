"""How jobs wait for, share and give up executions."""

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from services import accounts, jobs, leases
from services.accounts import Principal
from services.artifacts import Stored, register
from services.db import Database
from services.jobs import Submission
from services.problems import Problem
from services.settings import Settings
from services.states import State
from services.tables import Execution, Job

ROWS = {"source": "synthetic"}


@pytest.fixture
def ada(database: Database) -> Principal:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "admin")
        _, token = accounts.create_key(session, b"k", owner.id, "key", list(accounts.SCOPES))
        return accounts.authenticate(session, b"k", token)


def submit(session: Session, settings: Settings, ada: Principal, kind: str, spec: dict[str, Any], **more: Any) -> Job:
    return jobs.submit(session, settings, ada.owner_id, Submission(kind, spec, **more))[0]


def claim(session: Session) -> leases.Claim | None:
    return leases.claim(session, "w", "boot", ["train"], ["cpu"], 60)


def test_a_long_chain_of_waiting_jobs_ends_with_its_head(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        head = last = submit(session, settings, ada, "train.activations", ROWS)
        for _ in range(600):
            inputs: dict[str, list[Any]] = {"transformer": [{"job": last.id, "output": "transformer", "index": None}]}
            last = submit(session, settings, ada, "train.activations", {}, inputs=inputs)
        jobs.cancel(session, ada, head.id)
        session.flush()
        states = session.scalars(select(Job.state)).all()
        assert states.count(State.FAILED) == 600
        assert last.reason == "input.failed"


def test_an_urgent_job_hastens_the_execution_that_it_joins(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        submit(session, settings, ada, "train.activations", {**ROWS, "seed": 1}, priority="backfill")
        submit(session, settings, ada, "train.activations", {**ROWS, "seed": 2}, priority="batch")
        urgent = submit(session, settings, ada, "train.activations", {**ROWS, "seed": 1}, priority="gate")
        claimed = claim(session)
        assert claimed is not None
        assert claimed.execution_id == urgent.execution_id


def test_too_few_inputs_are_refused_at_once_and_later(database: Database, settings: Settings, ada: Principal) -> None:
    with database.write() as session:
        for digest, type in (("a" * 64, "sae"), ("b" * 64, "activations")):
            register(session, Stored(digest, type, 1), ada.owner_id)  # type: ignore[arg-type]
        inputs: dict[str, list[Any]] = {"saes": ["a" * 64], "activations": ["b" * 64]}
        with pytest.raises(Problem) as refused:
            submit(session, settings, ada, "stress.trained_vs_random", {}, inputs=inputs)
        assert refused.value.slug == "wrong-input-count"


def test_one_execution_that_cannot_be_taken_back_does_not_stop_the_others(
    database: Database, settings: Settings, ada: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as session:
        for seed in (1, 2):
            submit(session, settings, ada, "train.activations", {**ROWS, "seed": seed})
        broken, sound = claim(session), claim(session)
        assert broken is not None
        assert sound is not None
        session.execute(update(Execution).where(Execution.id == broken.execution_id).values(attempt=7))
        session.execute(update(Execution).values(lease_until=0.0))
        session.expire_all()
        leases.reap(session, 3)
        assert session.get_one(Execution, sound.execution_id).state == State.QUEUED
        assert session.get_one(Execution, broken.execution_id).state == State.RUNNING
    assert "could not be taken back" in caplog.text


def test_cancelling_a_study_cancels_all_its_children(database: Database, settings: Settings, ada: Principal) -> None:
    with database.write() as session:
        study = submit(session, settings, ada, "study.pipeline", {"preset": "smoke"})
        jobs.cancel(session, ada, study.id)
        session.flush()
        children = session.scalars(select(Job).where(Job.parent_id == study.execution_id)).all()
        assert len(children) == 8
        assert {child.state for child in children} == {State.CANCELLED}
