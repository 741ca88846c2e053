"""A full disk is told from other troubles of a database or a file."""

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.db import Database, upgrade
from services.problems import storage_problem


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    upgrade(url := f"sqlite:///{tmp_path / 'husai.db'}")
    database = Database(url)
    with pytest.raises(DBAPIError) as failed:
        overfill(database)
    assert isinstance(failed.value.orig, sqlite3.OperationalError)
    problem = storage_problem(failed.value)
    assert problem is not None
    assert (problem.status, problem.slug) == (507, "storage-full")
    database.close()


def overfill(database: Database) -> None:
    with database.write() as session:
        pages = session.execute(text("PRAGMA page_count")).scalar()
        session.execute(text(f"PRAGMA max_page_count={pages}"))
        session.execute(text("INSERT INTO outbox (queue, execution_id) VALUES (hex(zeroblob(4000000)), 'e')"))


def test_a_full_disk_is_seen_behind_another_error() -> None:
    error = ValueError("the index could not be written")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert storage_problem(error) is not None


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied"), ValueError("the label says disk full"), None]
)
def test_other_errors_are_not_a_full_disk(error: Exception | None) -> None:
    assert storage_problem(error) is None
