from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, inspect, select

from services.db import Database, alembic_config, at_head, upgrade
from services.tables import Base, Candidate, ChainHead, Decision, Execution, SigningKey, Subject

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


def fill(database: Database, revision: str, rows: dict[str, dict[str, Any]]) -> None:
    """Bring an empty database to a revision and insert one row into each of some tables."""
    command.upgrade(alembic_config(database.url), revision)
    earlier = MetaData()
    earlier.reflect(database.engine)
    with database.engine.begin() as connection:
        for name, row in rows.items():
            columns = earlier.tables[name].columns
            filled = {c.name: EMPTY[c.type.python_type] for c in columns if not c.nullable}
            connection.execute(earlier.tables[name].insert().values(filled | row))


def test_decisions_made_before_were_judged_at_their_gates_instant(url: str) -> None:
    database = Database(url)
    rows: dict[str, dict[str, Any]] = {
        "owners": {"id": "o", "name": "ada"},
        "executions": {"id": "e", "owner_id": "o", "spec": {"as_of": "1970-01-01T01:00:00+00:00"}},
        "decisions": {"seq": 1, "execution_id": "e", "created_at": 9000.0, "public_key": ""},
    }
    fill(database, "0002", rows)
    upgrade(url)
    with database.read() as session:
        assert session.scalar(select(Decision.judged_at)) == 3600.0
    database.close()


def test_what_was_stored_before_is_entered_in_the_new_tables(url: str) -> None:
    database, subject = Database(url), "a" * 64
    rows: dict[str, dict[str, Any]] = {
        "owners": {"id": "o", "name": "ada"},
        "executions": {"id": "e", "owner_id": "o"},
        "results": {"execution_id": "e", "result": {"subject": [subject, 7], "converged": True}},
        "decisions": {"seq": 5, "execution_id": "e", "chain": "c" * 64, "public_key": "AAAA", "created_at": 2.0},
    }
    fill(database, "0004", rows)
    upgrade(url)
    with database.read() as session:
        assert session.execute(select(Subject.subject, Subject.execution_id)).all() == [(subject, "e")]
        assert session.execute(select(ChainHead.seq, ChainHead.chain)).all() == [(5, "c" * 64)]
        (key,) = session.scalars(select(SigningKey))
        assert (key.keyid, key.public_key, key.since) == (sha256(bytes(3)).hexdigest(), "AAAA", 2.0)
        assert not any(session.scalars(select(Candidate.public_badge)))
    database.close()


def test_the_way_back_is_open_where_rows_refer_to_each_other(url: str) -> None:
    database = Database(url)
    rows: dict[str, dict[str, Any]] = {
        "owners": {"id": "o", "name": "ada"},
        "executions": {"id": "e", "owner_id": "o"},
        "results": {"execution_id": "e", "result": {}},
    }
    fill(database, "0005", rows)
    command.downgrade(alembic_config(url), "0004")
    with database.engine.connect() as connection:
        assert "served_at" not in {column["name"] for column in inspect(connection).get_columns("owners")}
    upgrade(url)
    with database.read() as session:
        assert session.scalars(select(Execution.owner_id)).all() == ["o"]
    database.close()
