"""One instant per transaction that may write, and what the database is asked for a submission and a claim."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import event, select

from services import accounts, jobs, leases
from services.db import Database, clock, now
from services.jobs import Submission
from services.settings import Settings

SPEC = {"source": "synthetic"}


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """The first word and the table of every statement, in order; the transaction's own are left out."""
    seen: list[str] = []

    def see(*arguments: object) -> None:
        words = str(arguments[2]).replace('"', "").split()
        verb = words[0]
        if verb in ("INSERT", "UPDATE"):
            seen.append(f"{verb} {words[2 if verb == 'INSERT' else 1]}")
        elif verb in ("SELECT", "WITH") and "FROM" in words:
            seen.append(verb)

    event.listen(database.engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", see)


def test_a_transaction_that_writes_happens_at_one_instant(database: Database) -> None:
    with database.write() as session:
        start = clock(session)
        passed = session.scalars(select(now())).one()
        while passed <= start:
            passed = session.scalars(select(now())).one()
        assert clock(session) == start
        assert abs(start - time.time()) < 5
    with database.write() as session:
        assert clock(session) >= passed - 0.001


def test_a_transaction_that_reads_asks_for_the_time_again(database: Database) -> None:
    with database.write() as session:
        start = clock(session)
    with database.read() as session:
        later = next(instant for instant in iter(lambda: clock(session), None) if instant > start)
    assert later > start


def test_a_submission_writes_each_row_once(database: Database, settings: Settings) -> None:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher").id
    jobs.prepare("train.activations")
    with statements(database) as seen, database.write() as session:
        job, _ = jobs.submit(session, settings, owner, Submission("train.activations", SPEC))
        assert job.execution is not None
    assert seen.count("SELECT") == 2
    assert {"INSERT jobs", "INSERT executions", "INSERT events", "INSERT outbox"} == {*seen} - {"SELECT"}
    assert seen.count("INSERT jobs") == seen.count("INSERT executions") == seen.count("INSERT outbox") == 1


def test_a_claim_asks_for_the_next_execution_and_its_jobs_alone(database: Database, settings: Settings) -> None:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher").id
        jobs.submit(session, settings, owner, Submission("train.activations", SPEC))
    with statements(database) as seen, database.write(shared=True) as session:
        assert leases.claim(session, "w", "boot", ["train"], ["cpu"], 60) is not None
    assert seen.count("WITH") == 1
    assert seen.count("SELECT") == 2
    assert [name for name in seen if name.startswith("UPDATE")].count("UPDATE jobs") == 1
    assert len(seen) <= 9
