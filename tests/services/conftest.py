"""Every test of the services runs on SQLite and on Postgres."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from services.db import Database, upgrade
from services.settings import Settings
from services.tables import Base
from tests.servers import Given, Postgres

Fresh = Callable[[], Settings]


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres | Given) -> str:
    """A Postgres database at the newest migration."""
    url = postgres.create("services")
    upgrade(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Fresh:
    """Makes settings with a home of their own and an empty database; on Postgres the last one made is emptied."""
    numbers = itertools.count()

    def make() -> Settings:
        home = tmp_path / f"home-{next(numbers)}"
        home.mkdir()
        url = ""
        if request.param == "postgres":
            url = request.getfixturevalue("postgres_url")
            empty(url)
        else:
            shutil.copy(migrated, home / "husai.db")
        return Settings(home=home, database_url=url, broker_url="", artifact_url="", device="cpu")

    return make


def empty(url: str) -> None:
    """Delete every row."""
    database = Database(url)
    with database.write() as session:
        names = ", ".join(table.name for table in Base.metadata.sorted_tables)
        session.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    database.close()


@pytest.fixture
def settings(fresh: Fresh) -> Settings:
    """A home of its own, with an empty database of either kind."""
    return fresh()
