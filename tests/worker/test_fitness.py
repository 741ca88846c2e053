"""A host whose store or disk fails: its worker stops claiming, says so, blames no job, and goes on by itself."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from services.db import Database
from services.settings import Settings
from services.states import State
from services.tables import Attempt, Worker
from tests.worker.serving import execution, submit
from worker.worker import WorkerProcess


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def shown(database: Database) -> tuple[str, str | None]:
    """State and problem in the worker's row."""
    with database.read() as session:
        row = session.scalars(select(Worker)).one()
        return row.state, row.problem


def spoil(folder: Path) -> Path:
    """Put a file where a folder is; returns where the folder is now."""
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    folder.write_text("not a folder")
    return elsewhere


def repair(folder: Path, elsewhere: Path) -> None:
    folder.unlink()
    elsewhere.rename(folder)


@pytest.mark.parametrize("broken", ["artifact store", "work folder"])
def test_a_broken_folder_costs_no_attempt_and_the_worker_says_so(
    settings: Settings, database: Database, broken: str
) -> None:
    worker = WorkerProcess(settings, database, ["train"], 1)
    worker.fitness.retry = 0.1
    worker.present()
    assert shown(database) == ("ready", None)
    folder = Path(settings.artifacts) if broken == "artifact store" else settings.root / "work"
    id, elsewhere = submit(settings, database), spoil(folder)
    slot = threading.Thread(target=worker.work, args=(["train"],))
    slot.start()
    try:
        until(lambda: shown(database)[1])
        state, problem = shown(database)
        assert problem is not None
        assert problem.startswith(f"{broken} ")
        assert state == f"unfit: {problem}"
        until(lambda: execution(database, id).state == State.QUEUED)
        held = execution(database, id)
        assert (held.reason, held.lost, held.attempt) == ("host.storage", 0, 1)
        time.sleep(0.5)
        assert execution(database, id).attempt == 1, "nothing is claimed while the host is unfit"
    finally:
        repair(folder, elsewhere)
        slot.join(60)
    done = execution(database, id)
    assert (done.state, done.attempt, done.lost) == (State.SUCCEEDED, 2, 0)
    assert shown(database) == ("ready", None)
    with database.read() as session:
        outcomes = session.scalars(select(Attempt.outcome).order_by(Attempt.number)).all()
    assert outcomes == ["host.storage", "succeeded"]


def test_a_worker_that_starts_on_a_broken_store_claims_nothing(settings: Settings, database: Database) -> None:
    Path(settings.artifacts).write_text("not a folder")
    worker = WorkerProcess(settings, database, ["train"], 1)
    assert shown(database)[0].startswith("unfit: artifact store ")
    id = submit(settings, database)
    slot = threading.Thread(target=worker.work, args=(["train"],))
    slot.start()
    time.sleep(0.5)
    worker.drain.set()
    slot.join(10)
    assert execution(database, id).attempt == 0
