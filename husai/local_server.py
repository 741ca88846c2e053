"""The service on this machine: one API process and one worker process below a home folder, kept alive.

Both are started in process groups of their own and get SIGTERM from the kernel when this process dies (Linux), so
that they never outlive it, even after SIGKILL. Start and tend a `Server` from the main thread only: the kernel's
signal belongs to the thread that started the process.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from husai.connect import running
from husai.errors import Unavailable, Usage

PORT = 8765
START_SECONDS = 60.0
STEADY_SECONDS = 60.0
LOG_BYTES = 8 << 20
PR_SET_PDEATHSIG = 1


class ServiceProcess:
    """One process that is started again when it dies, after growing pauses."""

    def __init__(self, name: str, arguments: list[str], home: Path) -> None:
        self.name, self._arguments, self._home = name, arguments, home
        self._process: subprocess.Popen[bytes] | None = None
        self._started, self._pause, self._again = 0.0, 0.5, 0.0

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._home / "logs" / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process."""
        self.log.parent.mkdir(exist_ok=True, mode=0o700)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with open(self.log, "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.name, *self._arguments],
                env=environment(self._home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        self._started = time.monotonic()

    def tend(self) -> bool:
        """Start the process again if it has died and the pause is over; True when it was found dead."""
        if self.alive:
            return False
        now = time.monotonic()
        if not self._again:
            self._pause = 0.5 if now - self._started > STEADY_SECONDS else min(2 * self._pause, 30.0)
            self._again = now + self._pause
            return True
        if now >= self._again:
            self._again = 0.0
            self.start()
        return False

    def signal(self, number: signal.Signals) -> None:
        """Ask the process to stop, which sees to its own, or kill it with its whole group."""
        if self._process is not None and (self.alive or number == signal.SIGKILL):
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if number == signal.SIGKILL else os.kill)(self._process.pid, number)

    def last_words(self) -> str:
        """The end of its log: the last line that is not indented, with what follows it."""
        with suppress(OSError, IndexError):
            lines = self.log.read_text(errors="replace").strip().splitlines()
            start = max((i for i, line in enumerate(lines) if not line.startswith(" ")), default=0)
            return " ".join(" ".join(lines[start:]).split()) or "its log is empty"
        return "it has no log"


class Server:
    """The service of one home folder, from `with` to its end.

    Args:
        home: folder of the database, artifacts and logs; made if absent.
        host: address to listen on.
        port: port to listen on; 0 takes a free one, None takes 8765 or, if that is taken, a free one.
    """

    def __init__(self, home: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.home, self.host, self._wanted = home, host, port
        self.url = ""
        self.processes: list[ServiceProcess] = []
        self._lock: int | None = None

    def __enter__(self) -> Self:
        from husai_core.folders import make_private

        try:
            make_private(self.home)
        except PermissionError as error:
            raise Usage(f"cannot keep a service here: {error}") from None
        self._lock = _only_one(self.home)
        (self.home / "server.json").unlink(missing_ok=True)
        try:
            port = choose_port(self.host, self._wanted)
            shown = f"[{self.host}]" if ":" in self.host else self.host
            shown = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(shown, shown)
            self.url = f"http://{shown}:{port}"
            self.processes = [
                ServiceProcess("api", ["--host", self.host, "--port", str(port)], self.home),
                ServiceProcess("worker", [], self.home),
            ]
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> None:
        """Start the API, whose start the worker's imports would only slow down, then the worker."""
        api, worker = self.processes
        api.start()
        deadline = time.monotonic() + START_SECONDS
        while not (api.alive and answers(self.url)):
            if not api.alive or time.monotonic() > deadline:
                raise Unavailable(f"the API did not start: {api.last_words()} ({api.log})")
            time.sleep(0.05)
        worker.start()
        _write(self.home / "server.json", json.dumps({"url": self.url, "pid": os.getpid()}))

    def tend(self) -> list[str]:
        """Start what has died; returns what there is to say about it. To be called about every second."""
        return [
            f"{process.name} ended and is being started again; its log is {process.log}"
            for process in self.processes
            if process.tend()
        ]

    def stop(self) -> None:
        """Stop both processes: SIGTERM, time to finish, SIGKILL."""
        if self._lock is None:
            return
        (self.home / "server.json").unlink(missing_ok=True)
        deadline = time.monotonic() + grace_seconds() + 5
        with suppress(KeyboardInterrupt):
            for process in reversed(self.processes):
                process.signal(signal.SIGTERM)
            while any(process.alive for process in self.processes) and time.monotonic() < deadline:
                time.sleep(0.05)
        for process in self.processes:
            process.signal(signal.SIGKILL)
        os.close(self._lock)
        self._lock = None


def grace_seconds() -> float:
    """What a draining worker is given to hand its jobs back."""
    try:
        return float(os.environ.get("HUSAI_GRACE_SECONDS", ""))
    except ValueError:
        return 30.0


def environment(home: Path) -> dict[str, str]:
    """The environment of the two processes. A checkout that is not installed stays importable."""
    root = Path(__file__).resolve().parent.parent
    paths = [str(root)] if (root / "pyproject.toml").exists() else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    settings = {"HUSAI_HOME": str(home), "PYDANTIC_ERRORS_INCLUDE_URL": "false"}
    return os.environ | settings | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})


def choose_port(host: str, wanted: int | None) -> int:
    """A port that can be listened on.

    Raises:
        Usage: the one asked for is taken, or the host is not of this machine.
    """
    for port in [PORT, 0] if wanted is None else [wanted]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return int(probe.getsockname()[1])
            except (OSError, OverflowError) as error:
                problem = getattr(error, "strerror", None) or str(error)
    raise Usage(f"cannot listen on {host}:{wanted if wanted is not None else PORT}: {problem}")


def answers(url: str) -> bool:
    """True when the service at an address is up."""
    from urllib.error import URLError
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(f"{url}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, OSError, ValueError):
        return False


def present(home: Path) -> str | None:
    """The address of the server that runs on a home folder, if one does."""
    try:
        url = running(home)
    except Unavailable:
        return None
    return url if answers(url) else None


def _only_one(home: Path) -> int:
    """Hold the home folder's lock until the descriptor is closed or this process dies.

    Raises:
        Usage: another server holds it.
    """
    lock = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(10):  # a client that looks for the server holds the lock for a moment
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.02)
    os.close(lock)
    where = present(home)
    raise Usage(f"A HUSAI server for {home} is already running" + (f" at {where}" if where else ""))


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first: ask for SIGTERM at its parent's death (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _private(path: str, flags: int) -> int:
    """Open a file that only its owner can read."""
    return os.open(path, flags, 0o600)


def _write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    with open(unfinished, "w", opener=_private) as file:
        file.write(text + "\n")
    unfinished.replace(path)
