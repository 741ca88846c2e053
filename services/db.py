"""The database: one writer at a time on SQLite, ordinary transactions on Postgres, and the database's own clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Float, create_engine, event, select, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

if TYPE_CHECKING:
    from alembic.config import Config


class now(GenericFunction[float]):
    """The database's clock, Unix seconds with milliseconds."""

    type = Float()
    inherit_cache = True
    name = "husai_now"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


class Database:
    """Short sessions over one engine."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        arguments: dict[str, Any] = {"connect_args": {"timeout": 60, "check_same_thread": False}} if self.sqlite else {}
        self.engine = create_engine(url, pool_pre_ping=not self.sqlite, **arguments)
        if self.sqlite:
            _configure_sqlite(self.engine)
        self._writer = self.engine.execution_options(husai_write=True)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; committed at the end, rolled back on an exception."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view that writes nothing."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def clock(session: Session) -> float:
    """The database's time now."""
    return float(session.scalar(select(now())) or 0.0)


def upgrade(url: str) -> None:
    """Bring the schema to the newest migration; safe to call from several processes."""
    from alembic import command

    command.upgrade(alembic_config(url), "head")


def at_head(database: Database) -> bool:
    """True when the schema is at the newest migration."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(alembic_config(database.url)).get_current_head()
    with database.read() as session:
        try:
            return bool(session.scalar(text("SELECT version_num FROM alembic_version")) == head)
        except (OperationalError, ProgrammingError):
            return False


def alembic_config(url: str) -> "Config":
    """Alembic's configuration for one database."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    config.attributes["url"] = url
    return config


def _configure_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and `BEGIN IMMEDIATE` for writers, so that a writer waits at its start and never fails."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=60000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("husai_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
