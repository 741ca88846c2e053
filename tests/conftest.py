"""Fixtures that every part of the suite shares."""

import shutil
from pathlib import Path

import pytest

from services.db import Database, upgrade
from services.settings import Settings


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
