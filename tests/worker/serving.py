"""Small jobs for workers that run in this process."""

from typing import Any

from services import accounts, jobs
from services.db import Database
from services.jobs import Submission
from services.settings import Settings
from services.tables import Execution, Job

WORLD = {"rows": 64, "n_features": 8, "d_model": 8, "active": 2}
ROWS = {"source": "synthetic", "world": WORLD}


def submit(settings: Settings, database: Database, kind: str = "train.activations", spec: Any = None) -> str:
    """The id of the execution of a new job."""
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        job, _ = jobs.submit(session, settings, owner.id, Submission(kind, ROWS if spec is None else spec))
        assert job.execution_id is not None
        return job.execution_id


def execution(database: Database, id: str) -> Execution:
    """An execution as it is now."""
    with database.read() as session:
        return session.get_one(Execution, id)


def job_of(database: Database, execution_id: str) -> Job:
    """The job that follows an execution."""
    from sqlalchemy import select

    with database.read() as session:
        return session.scalars(select(Job).where(Job.execution_id == execution_id)).one()
