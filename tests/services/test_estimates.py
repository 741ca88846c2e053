"""How fast this service is, as its recent executions show."""

import pytest
from sqlalchemy.orm import Session

from husai_core.kinds.kind import Work
from services import accounts, estimates
from services.db import Database
from services.ids import new_id
from services.settings import Settings
from services.states import State
from services.tables import Attempt, Execution
from tests.worker.serving import execution, submit
from worker.worker import WorkerProcess

KIND = "train.sae"


def ran(
    session: Session, units: float | None, seconds: float, device: str = "cpu", state: State = State.SUCCEEDED
) -> None:
    """An execution that took so long for so much work."""
    row = Execution(
        id=new_id("execution"), digest="d" * 64, kind=KIND, queue="train", spec={}, inputs={}, device=device,
        environment={}, owner_id=accounts.create_owner(session, "ada", "researcher").id, priority=1, shared=False,
        state=state, attempt=2, work=None if units is None else {"units": units}, created_at=0.0, finished_at=100.0,
    )  # fmt: skip
    session.add(row)
    session.flush()
    session.add(Attempt(execution_id=row.id, number=1, worker_id="w", started_at=0.0, ended_at=90.0))
    session.add(Attempt(execution_id=row.id, number=2, worker_id="w", started_at=100.0, ended_at=100.0 + seconds))


def test_the_speed_is_the_median_of_what_executions_of_a_kind_reached(database: Database) -> None:
    with database.write() as session:
        assert estimates.speed(session, KIND, "cpu") is None
        for units, seconds in ((100.0, 10.0), (400.0, 20.0), (9000.0, 30.0)):
            ran(session, units, seconds)
        ran(session, None, 1.0)
        ran(session, 1e9, 1.0, device="cuda")
        ran(session, 1e9, 1.0, state=State.FAILED)
        assert estimates.speed(session, KIND, "cpu") == pytest.approx(20.0)
        assert estimates.seconds(session, KIND, "cpu", Work(units=100.0)) == pytest.approx(5.0)
        assert estimates.seconds(session, KIND, "cpu", None) is None
        assert estimates.speed(session, "stress.ood", "cpu") is None


def test_a_finished_execution_keeps_the_work_that_was_estimated(settings: Settings, database: Database) -> None:
    id = submit(settings, database)
    WorkerProcess(settings, database, ["train"], 1).work(["train"])
    done = execution(database, id)
    expected = estimates.work_of(done.kind, done.spec, {})
    assert expected is not None
    assert done.work == expected.model_dump(mode="json", exclude={"outputs"})
    with database.read() as session:
        assert (estimates.speed(session, done.kind, "cpu") is not None) == (expected.units > 0)
