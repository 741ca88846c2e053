"""How long a request will take: work by its kinds' estimates, at the speeds that were measured here."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from services import accounts, estimates, jobs, leases
from services.db import Database
from services.jobs import Submission
from services.settings import Settings
from services.states import State
from services.tables import Attempt, Execution

SPEC = {"source": "synthetic"}
STUDY = {"preset": "smoke", "as_of": "2026-01-31T12:00:00Z"}


def measured(database: Database, settings: Settings, seconds: float, units: float) -> None:
    """A collection of rows that took so long for so much work."""
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher").id
        jobs.submit(session, settings, owner, Submission("train.activations", SPEC))
        held = leases.claim(session, "w", "boot", ["train"], ["cpu"], 60)
        assert held
        ended = {"state": State.SUCCEEDED, "work": {"units": units}, "finished_at": 1000.0}
        session.execute(update(Execution).where(Execution.id == held.execution_id).values(**ended))
        times = {"started_at": 1000.0 - seconds, "ended_at": 1000.0}
        session.execute(update(Attempt).where(Attempt.execution_id == held.execution_id).values(**times))


def test_work_takes_as_long_as_the_speed_measured_here_says(database: Database, settings: Settings) -> None:
    measured(database, settings, seconds=2.0, units=1e6)
    with database.read() as session:
        whole, cells = estimates.forecast(session, "train.activations", SPEC, {}, "cpu")
        elsewhere, _ = estimates.forecast(session, "train.activations", SPEC, {}, "cuda")
    assert whole.seconds == pytest.approx(whole.units / 5e5)
    assert cells == {"job": whole}
    assert (elsewhere.seconds, elsewhere.basis) == (None, "no train.activations has finished here yet")


def test_a_study_is_forecast_by_its_cells_each_at_its_own_speed(database: Database, settings: Settings) -> None:
    measured(database, settings, seconds=2.0, units=1e6)
    with database.read() as session:
        whole, cells = estimates.forecast(session, "study.pipeline", STUDY, {}, "cpu")
    assert list(cells)[:2] == ["transformer", "activations"]
    assert "gate" in cells
    assert cells["activations"].seconds == pytest.approx(cells["activations"].units / 5e5)
    assert cells["sae"].seconds is None
    assert whole.seconds is None
    assert "train.sae" in whole.basis
    assert whole.units == pytest.approx(sum(cell.units for cell in cells.values()))
    assert whole.memory_bytes == max(cell.memory_bytes for cell in cells.values())
