"""Attempts of a real job, each in a process of its own, that are watched over here."""

import threading
from pathlib import Path
from typing import Any, BinaryIO

from husai_core.artifact_index import index_tree
from services import accounts, jobs, leases
from services.artifacts import Store, register, store_tree
from services.db import Database
from services.jobs import Submission
from services.settings import Settings
from services.states import State
from services.tables import Execution
from tests.husai_core.kinds.stress_job import RECIPE, run
from worker.supervisor import Supervisor

HOUR = 3600.0
WORLD = {"rows": 512, "n_features": 8, "d_model": 8, "active": 2}


class Slow(Store):
    """To read a blob takes it two days and to write a file an hour, as the attempt that it serves tells the time."""

    serves: Supervisor

    def open(self, digest: str) -> BinaryIO:
        self._let_pass(48 * HOUR)
        return super().open(digest)

    def put(self, *arguments: Any) -> None:
        super().put(*arguments)
        self._let_pass(HOUR)

    def _let_pass(self, seconds: float) -> None:
        self.serves.started -= seconds
        self.serves.worked -= seconds


def submit_saes(settings: Settings, database: Database, home: Path) -> None:
    """A job that trains on activations, which are stored."""
    (rows,) = run("train.activations", home, {"source": "synthetic", "world": WORLD})[1]
    stored = store_tree(Store(settings.artifacts), index_tree("activations", rows.path), rows.path)
    job = Submission("train.sae", {"recipe": RECIPE, "seeds": [0]}, {"activations": [stored.sha256]})
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        register(session, stored, owner.id)
        jobs.submit(session, settings, owner.id, job)


def attempt(settings: Settings, database: Database, *, drain: bool = False) -> Execution:
    """The execution after one more attempt, which is told to stop at once if it shall drain."""
    with database.write() as session:
        claim = leases.claim(session, "w", "boot", ["train"], ["cpu"], 600)
    assert claim is not None
    store, draining = Slow(settings.artifacts), threading.Event()
    store.serves = Supervisor(settings, database, store, None, claim, draining)
    if drain:
        draining.set()
    assert store.serves.run() is None
    with database.read() as session:
        return session.get_one(Execution, claim.execution_id)


def test_the_time_that_its_files_take_is_not_the_jobs(settings: Settings, database: Database, tmp_path: Path) -> None:
    patient = settings.model_copy(update={"grace_seconds": 300.0})
    submit_saes(settings, database, tmp_path / "rows")
    drained = attempt(patient, database, drain=True)
    assert (drained.state, drained.reason) == (State.QUEUED, "drained")
    assert drained.resume is not None
    done = attempt(patient, database)
    assert (done.state, done.reason) == (State.SUCCEEDED, None)
