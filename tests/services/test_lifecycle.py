"""How jobs wait for, share and give up executions, and which of these a worker gets or loses."""

from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from husai_core.kinds.study import pipeline
from services import accounts, jobs, leases
from services.accounts import Principal
from services.artifacts import Stored, productions, register
from services.db import Database
from services.jobs import Submission
from services.leases import Failure, Success
from services.problems import Problem
from services.settings import Settings
from services.states import State
from services.tables import ArtifactRow, Execution, Job

ROWS = {"source": "synthetic"}


def principal(database: Database, name: str, role: str) -> Principal:
    with database.write() as session:
        owner = accounts.create_owner(session, name, role)
        _, token = accounts.create_key(session, b"k", owner.id, "key", list(accounts.SCOPES))
        return accounts.authenticate(session, b"k", token)


@pytest.fixture
def ada(database: Database) -> Principal:
    return principal(database, "ada", "admin")


@pytest.fixture
def bob(database: Database) -> Principal:
    return principal(database, "bob", "researcher")


def submit(session: Session, settings: Settings, ada: Principal, kind: str, spec: dict[str, Any], **more: Any) -> Job:
    return jobs.submit(session, settings, ada.owner_id, Submission(kind, spec, **more))[0]


def claim(session: Session, worker: str = "w", boot: str = "boot") -> leases.Claim:
    claimed = leases.claim(session, worker, boot, ["train"], ["cpu"], 60)
    assert claimed is not None
    return claimed


def state(session: Session, claimed: leases.Claim) -> State:
    return session.get_one(Execution, claimed.execution_id).state


def test_a_long_chain_of_waiting_jobs_ends_with_its_head(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        register(session, Stored("a" * 64, "sae", 1), ada.owner_id)
        head = last = submit(session, settings, ada, "train.activations", ROWS)
        for _ in range(600):
            evidence = [{"job": last.id, "output": "result", "index": None}]
            inputs: dict[str, list[Any]] = {"candidate": ["a" * 64], "evidence": evidence}
            last = submit(session, settings, ada, "release.gate", {}, inputs=inputs)
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
        assert claim(session).execution_id == urgent.execution_id


def test_among_equally_urgent_jobs_the_owner_with_the_fewest_running_is_next(
    database: Database, settings: Settings, ada: Principal, bob: Principal
) -> None:
    with database.write() as session:
        first, second = (submit(session, settings, ada, "train.activations", {**ROWS, "seed": seed}) for seed in (1, 2))
        third, fourth = (submit(session, settings, bob, "train.activations", {**ROWS, "seed": seed}) for seed in (3, 4))
        assert [claim(session).job_id for _ in range(4)] == [first.id, third.id, second.id, fourth.id]


def test_an_urgent_job_goes_first_however_many_its_owner_has_running(
    database: Database, settings: Settings, ada: Principal, bob: Principal
) -> None:
    with database.write() as session:
        submit(session, settings, ada, "train.activations", {**ROWS, "seed": 1})
        claim(session)
        submit(session, settings, bob, "train.activations", {**ROWS, "seed": 2})
        urgent = submit(session, settings, ada, "train.activations", {**ROWS, "seed": 3}, priority="gate")
        assert claim(session).job_id == urgent.id


def test_too_few_inputs_are_refused_at_once_and_later(database: Database, settings: Settings, ada: Principal) -> None:
    with database.write() as session:
        for digest, type in (("a" * 64, "sae"), ("b" * 64, "activations")):
            register(session, Stored(digest, type, 1), ada.owner_id)  # type: ignore[arg-type]
        inputs: dict[str, list[Any]] = {"saes": ["a" * 64], "activations": ["b" * 64]}
        with pytest.raises(Problem) as refused:
            submit(session, settings, ada, "stress.intervention", {"model": "classics-2m"}, inputs=inputs)
        assert refused.value.slug == "wrong-input-count"


def test_one_execution_that_cannot_be_taken_back_does_not_stop_the_others(
    database: Database, settings: Settings, ada: Principal, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as session:
        for seed in (1, 2):
            submit(session, settings, ada, "train.activations", {**ROWS, "seed": seed})
        broken, sound = claim(session), claim(session)
        session.execute(update(Execution).where(Execution.id == broken.execution_id).values(attempt=7))
        session.execute(update(Execution).values(lease_until=0.0))
        session.expire_all()
        leases.reap(session, 3)
        assert (state(session, sound), state(session, broken)) == (State.QUEUED, State.RUNNING)
    assert "could not be taken back" in caplog.text


def test_a_worker_that_starts_again_takes_back_what_it_ran_before_and_nothing_else(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        for seed in (1, 2, 3):
            submit(session, settings, ada, "train.activations", {**ROWS, "seed": seed})
        before, elsewhere, now = claim(session, "w", "1"), claim(session, "v", "1"), claim(session, "w", "2")
        assert leases.reap(session, 3, "w", "2") == 1
        assert [state(session, held) for held in (before, elsewhere, now)] == [
            State.QUEUED,
            State.RUNNING,
            State.RUNNING,
        ]


def test_a_cancelled_execution_whose_worker_is_lost_is_not_run_again(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        job = submit(session, settings, ada, "train.activations", ROWS)
        held = claim(session, "w", "1")
        jobs.cancel(session, ada, job.id)
        assert leases.reap(session, 3, "w", "2") == 1
        assert state(session, held) == State.CANCELLED


def test_a_cancelled_execution_that_is_handed_back_is_not_run_again(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        job = submit(session, settings, ada, "train.activations", ROWS)
        held = claim(session)
        jobs.cancel(session, ada, job.id)
        assert leases.hand_back(session, held.execution_id, held.attempt)
        assert state(session, held) == State.CANCELLED


def test_a_job_joins_no_execution_that_is_being_stopped(database: Database, settings: Settings, ada: Principal) -> None:
    with database.write() as session:
        stopped = submit(session, settings, ada, "train.activations", ROWS)
        held = claim(session)
        jobs.cancel(session, ada, stopped.id)
        equal = submit(session, settings, ada, "train.activations", ROWS)
        end = Failure(State.CANCELLED, "cancelled.user", "")
        assert leases.finish(session, held.execution_id, held.attempt, None, end)
        assert equal.state == State.QUEUED
        assert claim(session).job_id == equal.id


def test_a_stored_result_comes_from_a_job_that_has_it(
    database: Database, settings: Settings, ada: Principal, bob: Principal
) -> None:
    with database.write() as session:
        first, second = (submit(session, settings, owner, "train.activations", ROWS) for owner in (ada, bob))
        jobs.cancel(session, ada, first.id)
        held = claim(session)
        assert leases.finish(session, held.execution_id, held.attempt, None, Success({}, {}))
        assert submit(session, settings, ada, "train.activations", ROWS).reused_from == second.id


def test_an_artifact_was_made_whenever_a_job_made_it(
    database: Database, settings: Settings, ada: Principal, bob: Principal
) -> None:
    rows = Stored("a" * 64, "activations", 1)
    with database.write() as session:
        for _ in range(2):
            submit(session, settings, ada, "train.activations", ROWS, reuse=False)
            held = claim(session)
            assert leases.finish(session, held.execution_id, held.attempt, None, Success({}, {"activations": [rows]}))
        row = session.get_one(ArtifactRow, rows.sha256)
        ends = session.scalars(select(Execution.finished_at).order_by(Execution.finished_at)).all()
        assert productions(session, row, None) == productions(session, row, ada.owner_id) == ends
        assert productions(session, row, bob.owner_id) == [row.created_at]


def test_cancelling_a_study_cancels_all_its_children(database: Database, settings: Settings, ada: Principal) -> None:
    with database.write() as session:
        study = submit(session, settings, ada, "study.pipeline", {"preset": "smoke"})
        jobs.cancel(session, ada, study.id)
        session.flush()
        children = session.scalars(select(Job).where(Job.parent_id == study.execution_id)).all()
        assert len(children) == len(pipeline.STAGES)
        assert {child.state for child in children} == {State.CANCELLED}


def test_an_execution_that_one_host_after_another_fails_is_not_tried_for_ever(
    database: Database, settings: Settings, ada: Principal
) -> None:
    with database.write() as session:
        job = submit(session, settings, ada, "train.activations", ROWS)
        for _ in range(leases.MOST_HOST_FAULTS):
            assert job.state == State.QUEUED
            held = claim(session)
            leases.hand_back(session, held.execution_id, held.attempt, leases.HOST, "Work folder is full on x.")
        assert (job.state, job.reason) == (State.FAILED, "infra.host")
        assert job.detail == "Faults of hosts ended 20 attempts; at last: Work folder is full on x."
