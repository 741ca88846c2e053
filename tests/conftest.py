"""Fixtures that every part of the suite shares."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.db import Database, upgrade
from services.settings import Settings
from tests.servers import Given, Postgres, Redis, pairs

os.environ["HUSAI_WARM"] = "light"
GIVEN = {name: os.environ.pop(name, None) for name in ("HUSAI_DATABASE_URL", "HUSAI_BROKER_URL")}
"""Servers to test with; taken out of the environment, so that no embedded service finds them."""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite database at the newest migration."""
    path = tmp_path_factory.mktemp("schema") / "husai.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """A home of its own, with an empty database."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated, home / "husai.db")
    return Settings(home=home, database_url="", artifact_url="", device="cpu")


@pytest.fixture
def database(settings: Settings) -> Database:
    """The database of `settings`."""
    return Database(settings.database)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres | Given]:
    """A PostgreSQL server of this test process, or the one that HUSAI_DATABASE_URL names; both `create` databases."""
    url = GIVEN["HUSAI_DATABASE_URL"]
    with Given(url) if url else Postgres(tmp_path_factory.mktemp("postgres"), pairs()[0]) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis server of this test process, or the one that HUSAI_BROKER_URL names."""
    if url := GIVEN["HUSAI_BROKER_URL"]:
        yield url
        return
    with Redis(tmp_path_factory.mktemp("redis"), pairs()[0]) as server:
        yield server.url
