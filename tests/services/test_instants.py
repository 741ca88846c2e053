"""No instant of a job lies ahead of the present, so that no decision can be dated into the future."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services import accounts, jobs
from services.artifacts import Stored, register
from services.db import Database, clock
from services.jobs import Submission
from services.problems import Problem
from services.settings import Settings
from services.tables import Job

LATER = "2099-01-01T00:00:00Z"
CANDIDATE: dict[str, list[Any]] = {"candidate": ["a" * 64]}


def submit(database: Database, settings: Settings, kind: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The spec of the job that was accepted."""
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "researcher")
        register(session, Stored("a" * 64, "sae", 1), owner.id)
        job, _ = jobs.submit(session, settings, owner.id, Submission(kind, spec, **more))
        return session.get_one(Job, job.id).spec


@pytest.mark.parametrize(("kind", "inputs"), [("release.gate", CANDIDATE), ("study.pipeline", {})])
def test_an_instant_that_lies_ahead_is_refused(
    database: Database, settings: Settings, kind: str, inputs: dict[str, list[Any]]
) -> None:
    with pytest.raises(Problem) as refused:
        submit(database, settings, kind, {"as_of": LATER}, inputs=inputs)
    assert (refused.value.status, refused.value.slug) == (422, "as-of-ahead")


@pytest.mark.parametrize("as_of", ["0001-01-01T00:00:00+23:59", "2019-12-31T23:59:59Z"])
def test_an_instant_of_another_age_is_refused(database: Database, settings: Settings, as_of: str) -> None:
    with pytest.raises(Problem) as refused:
        submit(database, settings, "release.gate", {"as_of": as_of}, inputs=CANDIDATE)
    assert (refused.value.status, refused.value.slug) == (422, "as-of-past")


def test_an_absent_instant_is_the_present_and_clocks_may_differ_a_little(
    database: Database, settings: Settings
) -> None:
    with database.read() as session:
        present = clock(session)
    spec = submit(database, settings, "release.gate", {}, inputs=CANDIDATE)
    assert abs(datetime.fromisoformat(spec["as_of"]).timestamp() - present) < 60
    soon = datetime.fromtimestamp(present + 200, UTC).isoformat()
    assert submit(database, settings, "release.gate", {"as_of": soon}, inputs=CANDIDATE)["as_of"] == soon
