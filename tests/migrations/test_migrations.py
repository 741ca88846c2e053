from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from services.db import Database, alembic_config, at_head, upgrade
from services.tables import Base


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'husai.db'}"
    create: Callable[[str], str] = request.getfixturevalue("postgres").create
    return create("migrations")


def test_up_down_up_and_nothing_left_to_generate(url: str) -> None:
    database = Database(url)
    assert not at_head(database)
    upgrade(url)
    assert at_head(database)
    command.downgrade(alembic_config(url), "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    upgrade(url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": database.sqlite})
        assert compare_metadata(context, Base.metadata) == []
    database.close()
