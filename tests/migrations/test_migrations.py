from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from services.db import Database, alembic_config, at_head, upgrade
from services.tables import Base


def test_up_down_up_and_nothing_left_to_generate(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'husai.db'}"
    database = Database(url)
    assert not at_head(database)
    upgrade(url)
    assert at_head(database)
    command.downgrade(alembic_config(url), "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    upgrade(url)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()
