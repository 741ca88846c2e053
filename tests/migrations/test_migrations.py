from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, select

from services.db import Database, alembic_config, at_head, upgrade
from services.tables import Base, Decision

EMPTY: dict[type, Any] = {str: "queued", int: 0, float: 0.0, bool: False, object: {}}


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
        for name, table in Base.metadata.tables.items():
            keys = {key["name"] for key in inspect(connection).get_foreign_keys(name)}
            assert keys == {key.name for key in table.foreign_key_constraints}
    database.close()


def test_decisions_made_before_were_judged_at_their_gates_instant(url: str) -> None:
    database, earlier = Database(url), MetaData()
    command.upgrade(alembic_config(url), "0002")
    earlier.reflect(database.engine)
    rows: dict[str, dict[str, Any]] = {
        "owners": {"id": "o", "name": "ada"},
        "executions": {"id": "e", "owner_id": "o", "spec": {"as_of": "1970-01-01T01:00:00+00:00"}},
        "decisions": {"seq": 1, "execution_id": "e", "created_at": 9000.0},
    }
    with database.engine.begin() as connection:
        for name, row in rows.items():
            columns = earlier.tables[name].columns
            filled = {c.name: EMPTY[c.type.python_type] for c in columns if not c.nullable}
            connection.execute(earlier.tables[name].insert().values(filled | row))
    upgrade(url)
    with database.read() as session:
        assert session.scalar(select(Decision.judged_at)) == 3600.0
    database.close()
