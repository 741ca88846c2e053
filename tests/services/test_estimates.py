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
    session: Session,
    units: float | None,
    seconds: float,
    device: str = "cpu",
    state: State = State.SUCCEEDED,
    kind: str = KIND,
) -> None:
    """An execution that took so long for so much work."""
    row = Execution(
        id=new_id("execution"), digest="d" * 64, kind=kind, queue="train", spec={}, inputs={}, device=device,
        environment={}, owner_id=accounts.create_owner(session, "ada", "researcher").id, priority=1, shared=False,
        state=state, attempt=2, work=None if units is None else {"units": units}, created_at=0.0, finished_at=100.0,
    )  # fmt: skip
    session.add(row)
    session.flush()
    session.add(Attempt(execution_id=row.id, number=1, worker_id="w", started_at=0.0, ended_at=90.0))
    session.add(Attempt(execution_id=row.id, number=2, worker_id="w", started_at=100.0, ended_at=100.0 + seconds))


def test_a_speed_is_of_what_executions_of_a_kind_took_on_a_device(database: Database) -> None:
    with database.write() as session:
        assert estimates.speeds(session, [KIND], "cpu") == {KIND: None}
        for units in (100.0, 400.0, 9000.0):
            ran(session, units, 2.0 + units / 100)
        ran(session, None, 1.0)
        ran(session, 1e9, 1.0, device="cuda")
        ran(session, 1e9, 1.0, state=State.FAILED)
        speed = estimates.speeds(session, [KIND], "cpu")[KIND]
        assert speed is not None
        assert (speed.fixed, speed.per_unit, speed.most) == pytest.approx((2.0, 0.01, 9000.0))
        assert estimates.speeds(session, ["stress.ood"], "cpu") == {"stress.ood": None}


def test_small_jobs_foretell_large_ones_though_most_of_their_time_is_fixed() -> None:
    """One second of start and 1 s per 1e9 units, with times that are off by up to 10 %, and one that was disturbed."""
    noise = [1.05, 0.95, 1.1, 0.9, 1.02, 0.97, 1.0, 1.08]
    measured = [(units, factor * (1 + units / 1e9)) for factor, units in zip(noise * 2, [2e7, 5e8] * 8, strict=True)]
    speed = estimates.fit([*measured, (2e7, 60.0)])
    assert speed is not None
    assert speed.seconds(1e11) == pytest.approx(101, rel=0.25)
    assert speed.seconds(2e7) == pytest.approx(1.02, rel=0.15)


@pytest.mark.parametrize("measured", [[(100.0, 5.0)], [(100.0, 5.0), (100.0, 5.0)], [(100.0, 5.0), (200.0, 10.0)]])
def test_jobs_that_do_not_tell_a_fixed_part_have_none(measured: list[tuple[float, float]]) -> None:
    assert estimates.fit(measured) == estimates.Speed(0.0, 0.05, max(units for units, _ in measured))


def test_what_a_unit_takes_other_kinds_tells_the_fixed_part_of_jobs_of_one_size(database: Database) -> None:
    with database.write() as session:
        ran(session, 1e6, 2.0, kind="stress.ood")
        alone = estimates.speeds(session, ["stress.ood"], "cpu")["stress.ood"]
        assert alone == estimates.Speed(0.0, 2e-6, 1e6)
        for units in (1e6, 1e8):
            ran(session, units, 1.0 + units / 1e8)
        speed = estimates.speeds(session, ["stress.ood"], "cpu")["stress.ood"]
        assert speed is not None
        assert (speed.fixed, speed.per_unit) == pytest.approx((1.99, 1e-8))
    assert estimates.fit([(1e6, 2.0)], per_unit=1.0) == estimates.Speed(0.0, 2e-6, 1e6)


def test_no_part_of_a_time_is_negative() -> None:
    speed = estimates.fit([(100.0, 9.0), (200.0, 4.0), (300.0, 50.0)])
    assert speed is not None
    assert speed.fixed >= 0
    assert speed.per_unit > 0


def test_a_job_that_stopped_early_did_less_work() -> None:
    work = Work(units=100.0, at_most=True)
    assert estimates.work_done(work, {"done": 30, "total": 120, "unit": "steps"}).units == 25
    assert estimates.work_done(work, None) == work
    whole = Work(units=100.0)
    assert estimates.work_done(whole, {"done": 30, "total": 120}) == whole


def test_a_forecast_says_what_it_rests_on_and_what_it_leaves_out(database: Database) -> None:
    spec = {"recipe": {"d_sae": 64, "tokens": 100_000}}
    with database.write() as session:
        unknown, _ = estimates.forecast(session, KIND, spec, {}, "cpu")
        assert (unknown.seconds, unknown.basis) == (None, "no train.sae has finished here yet")
        ran(session, unknown.units / 100, 1.0)
        far, cells = estimates.forecast(session, KIND, spec, {}, "cpu")
        assert far.seconds == pytest.approx(100)
        assert far.basis == "speeds measured here lately, on jobs with at most 1/100 of the work"
        assert cells == {"job": far}
        assert (far.at_most, estimates.forecast(session, "train.transformer", {}, {}, "cpu")[0].at_most) == (
            False,
            True,
        )


def test_a_finished_execution_keeps_the_work_that_was_estimated(settings: Settings, database: Database) -> None:
    id = submit(settings, database)
    WorkerProcess(settings, database, ["train"], 1).work(["train"])
    done = execution(database, id)
    expected = estimates.work_of(done.kind, done.spec, {})
    assert expected is not None
    assert done.work == expected.model_dump(mode="json", exclude={"outputs"})
    with database.read() as session:
        assert (estimates.speeds(session, [done.kind], "cpu")[done.kind] is not None) == (expected.units > 0)
