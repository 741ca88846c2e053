"""The database, its own clock, and one rule on both of its kinds: whoever changes how jobs hang together is alone.

SQLite has one writer anyway. On Postgres an ordinary write transaction takes an advisory lock alone, so that no two
interleave and what is proven on SQLite holds there; one that touches single rows only (a claim, a renewal, a report)
shares that lock with its like and locks its rows. The server ends a transaction whose client fell silent, so that a
stopped process holds up nobody for long.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, Float, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import GenericFunction

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger("husai.db")
T = TypeVar("T")
LOCK = 0x4855534149
"""The advisory lock's number."""
SILENCE_SECONDS = 5
POSTGRES: dict[str, Any] = {
    "pool_pre_ping": True,
    "max_overflow": 35,
    "isolation_level": "READ COMMITTED",
    "connect_args": {
        "application_name": "husai",
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
    },
}
SQLITE: dict[str, Any] = {"connect_args": {"timeout": 60, "check_same_thread": False}}


OUTBOX_CHANNEL = "husai_outbox"
START = "husai_start"
"""Where a connection keeps the time at which its present transaction began, if that may write."""


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
        self.engine = create_engine(url, **(SQLITE if self.sqlite else POSTGRES))
        self._reader = self.engine
        if self.sqlite:
            _configure_sqlite(self.engine)
        else:
            event.listen(self.engine, "begin", _lock_postgres)
            self._reader = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._alone = self.engine.execution_options(husai_write="alone")
        self._shared = self.engine.execution_options(husai_write="shared")
        self._turn = threading.Lock()

    @contextmanager
    def write(self, *, shared: bool = False) -> Iterator[Session]:
        """A transaction that may write; committed at the end, rolled back on an exception.

        `shared` ones run beside each other on Postgres; each must lock the rows that it changes. The others of one
        process queue here, so that it holds up the rest for one turn at most if it is stopped. None may wait for
        anything but the database.
        """
        engine, turn = (self._shared, nullcontext()) if shared else (self._alone, self._turn)
        with turn, Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view that writes nothing."""
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    def persist(self, work: Callable[[Session], T], patient: Callable[[float], bool], *, shared: bool = False) -> T:
        """Run `work` in a write transaction, again and again while the database is away.

        A commit whose answer was lost is run again, too, so `work` must bear that. `patient` tells whether to go on
        after so many seconds.

        Raises:
            DBAPIError: the database was away for too long.
        """
        start, pause = time.monotonic(), 0.05
        while True:
            try:
                with self.write(shared=shared) as session:
                    return work(session)
            except DBAPIError as error:
                if not away(error) or not patient(time.monotonic() - start):
                    raise
                log.warning("the database is away; trying again: %s", str(error.orig).splitlines()[0])
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def away(error: Exception) -> bool:
    """True when the database could not be reached or ended the session, so that trying again may help."""
    return isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def complain(logger: logging.Logger, what: str, error: Exception) -> None:
    """Log that something failed and will be tried again; with a traceback, unless the database is merely away."""
    logger.warning("%s: %s", what, str(error).splitlines()[0] if str(error) else error, exc_info=not away(error))


def clock(session: Session) -> float:
    """The database's time: in a transaction that may write that of its start, after it waited for its turn."""
    start: float | None = session.connection().info.get(START)
    return float(session.scalar(select(now())) or 0.0) if start is None else start


def storable(text: str) -> str:
    """A text without what Postgres cannot keep: NUL characters and halves of surrogate pairs."""
    return text.replace("\0", "").encode(errors="replace").decode()


def upgrade(url: str) -> None:
    """Bring the schema to the newest migration; safe to call from several processes."""
    from alembic import command

    command.upgrade(alembic_config(url), "head")


def at_head(database: Database) -> bool:
    """True when the schema is at the newest migration.

    Raises:
        DBAPIError: Postgres does not answer.
    """
    with database.read() as session:
        try:
            return bool(session.scalar(text("SELECT version_num FROM alembic_version")) == _head())
        except ProgrammingError:
            return False
        except OperationalError:
            if database.sqlite:
                return False
            raise


@cache
def _head() -> str | None:
    """The newest migration."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(alembic_config("")).get_current_head()


def await_schema(database: Database, seconds: float = 60) -> None:
    """Wait until the schema is at the newest migration, which another process brings about.

    Raises:
        SystemExit: with status 5, after `seconds`.
    """
    deadline, why = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if at_head(database):
                return
            why = "the database does not have this version's schema: run `python -m migrations`"
        except DBAPIError as error:
            why = f"the database does not answer: {str(error.orig).splitlines()[0]}"
        time.sleep(0.1)
    print(f"husai: {why}", file=sys.stderr)
    sys.exit(5)


def alembic_config(url: str) -> "Config":
    """Alembic's configuration for one database."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    config.attributes["url"] = url
    return config


def _lock_postgres(connection: Connection) -> None:
    """Take the lock that keeps writers from interleaving, until the transaction ends or its client falls silent."""
    how = connection.get_execution_options().get("husai_write")
    connection.info[START] = None
    if how is not None:
        shared = "_shared" if how == "shared" else ""
        row = connection.exec_driver_sql(
            f"SELECT set_config('idle_in_transaction_session_timeout', '{SILENCE_SECONDS}s', true),"
            f" pg_advisory_xact_lock{shared}({LOCK}), extract(epoch from clock_timestamp())::float8"
        ).one()
        connection.info[START] = row[2]


def _configure_sqlite(engine: Engine) -> None:
    """WAL, foreign keys, and `BEGIN IMMEDIATE` for writers, so that a writer waits at its start and never fails."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "busy_timeout=60000",
            "foreign_keys=ON",
            "case_sensitive_like=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("husai_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
        connection.info[START] = time.time_ns() // 1_000_000 / 1000 if immediate else None  # as `julianday` cuts it
