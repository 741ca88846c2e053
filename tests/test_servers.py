"""The servers of the suite keep what they are told, through SIGKILL too, and leave no process behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tests.servers import Given, Postgres, Redis, Server, pairs, running, until

ROOT = Path(__file__).parents[1]
ORPHANS = """
import sys, time
from pathlib import Path
from tests.servers import Postgres, Redis
for kind in (Postgres, Redis):
    server = kind(Path(sys.argv[1]), sys.argv[2])
    server.start()
    print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module", params=pairs())
def pair(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def database_server(pair: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp(pair), pair) as server:
        yield server


@pytest.fixture
def reachable() -> Iterator[str]:
    """A folder for what a killed process cannot remove, open to the user of its servers."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield folder


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""))


def family(server: Server) -> set[int]:
    return {server.pid} | {pid for pid, parent in running().items() if parent == server.pid}


def tables(url: str) -> set[str]:
    with connect(url) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_a_committed_row_survives_sigkill_and_an_open_transaction_does_not(database_server: Postgres) -> None:
    url = database_server.create("crash")
    with connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS row")
    with connect(url) as working:
        working.execute("CREATE TABLE lost ()")
        processes = family(database_server)
        assert len(processes) > 5
        database_server.kill()
        assert not database_server.alive
        assert processes.isdisjoint(running())
        with pytest.raises(psycopg.OperationalError):
            working.execute("SELECT 1")
    database_server.start()
    assert tables(url) == {"kept"}
    with connect(url) as connection:
        assert connection.execute("SELECT row, current_setting('fsync') FROM kept").fetchall() == [(7, "on")]


def test_databases_are_separate(database_server: Postgres) -> None:
    first, second = database_server.create("same"), database_server.create("same")
    with connect(first) as connection:
        connection.execute("CREATE TABLE here ()")
    assert [tables(url) for url in (first, second, database_server.url)] == [{"here"}, set(), set()]


def test_a_given_server_is_left_as_it_was(database_server: Postgres) -> None:
    def names() -> set[str]:
        with connect(database_server.url) as connection:
            return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}

    before = names()
    with Given(database_server.url) as lent, connect(lent.create("test")):
        assert len(names() - before) == 2
        assert database_server.url != lent.url
    assert names() == before


def test_stop_leaves_no_process_and_keeps_the_data(database_server: Postgres) -> None:
    url, port, processes = database_server.create("stop"), database_server.port, family(database_server)
    database_server.stop()
    assert not database_server.alive
    assert processes.isdisjoint(running())
    database_server.start()
    assert database_server.port == port
    assert tables(url) == set()


def test_redis_keeps_what_was_written_through_sigkill_until_it_is_left(pair: str, tmp_path: Path) -> None:
    with Redis(tmp_path, pair) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "7")
        until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
        server.kill()
        server.start()
        assert client.get("kept") == b"7"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert server.pid not in running()
    assert not server.data.exists()
    assert "Ready to accept connections" in server.log.read_text()


def test_servers_end_with_the_process_that_started_them(pair: str, reachable: str) -> None:
    command, environment = [sys.executable, "-c", ORPHANS, reachable, pair], {**os.environ, "TMPDIR": reachable}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        servers = {int(parent.stdout.readline()), int(parent.stdout.readline())}
        processes = servers | {pid for pid, above in running().items() if above in servers}
        assert len(processes) > 6
        parent.kill()
    until(lambda: processes.isdisjoint(running()))
