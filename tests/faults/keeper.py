"""A service whose processes are started again at once when they die, and whose failpoints can be armed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import httpx
from sqlalchemy import func, select

from services.db import Database
from services.tables import Execution, Outbox, Result

ROOT = Path(__file__).parents[2]


def failpoints() -> list[str]:
    """The names of all failpoints, read from the code."""
    files = [*ROOT.glob("services/*.py"), *ROOT.glob("worker/*.py"), *ROOT.glob("api/**/*.py")]
    return sorted({name for file in files for name in re.findall(r'failpoint\("([\w.]+)"\)', file.read_text())})


def inherited() -> dict[str, str]:
    """This process's environment without any setting of the project."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HUSAI_")}


class Keeper:
    """One API and one worker process on one home, in embedded mode."""

    patience = 90.0
    """Seconds after which waiting has failed."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home, self.armed = home, home / "armed"
        self.armed.mkdir(parents=True)
        home.chmod(0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            **inherited(), "HUSAI_FAILPOINTS": str(self.armed), "HUSAI_WARM": "light", "PYTHONPATH": str(ROOT),
            "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "HUSAI_SLOTS": "1", "HUSAI_THREADS": "1",
            "HUSAI_DEVICE": "cpu", **environment,
        }  # fmt: skip
        self.commands = {"api": ["api", "--port", str(self.port)], "worker": ["worker"]}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping, self.over = threading.Event(), threading.Event()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=40)

    @cached_property
    def database(self) -> Database:
        """The database that the processes share."""
        return Database(self.environment.get("HUSAI_DATABASE_URL") or f"sqlite:///{self.home / 'husai.db'}")

    @property
    def models(self) -> Path:
        """Where the processes look for language models."""
        return self.home / "hf" / "hub"

    def folder(self, name: str) -> Path:
        """The home folder of a process."""
        return self.home

    def __enter__(self) -> Self:
        for name in self.commands:
            self._start(name)
        threading.Thread(target=self._keep, daemon=True).start()
        key = self.folder("api") / "key"
        self.until(lambda: key.exists() and self.client.get("/healthz").status_code == 200)
        self.client.headers["Authorization"] = f"Bearer {key.read_text().strip()}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        self.database.close()
        self._leave()
        self.over.set()

    def _leave(self) -> None:
        """What is left to end when the processes have ended."""

    def _start(self, name: str) -> None:
        environment = {**self.environment, "HUSAI_HOME": str(self.folder(name))}
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *self.commands[name]], env=environment, stdout=log, stderr=log
            )

    def _keep(self) -> None:
        """Start again what dies. Who was started here gets a signal when this thread ends, so it ends last."""
        while not self.stopping.wait(0.02):
            self._revive()
        self.over.wait()

    def _revive(self) -> None:
        """Start whatever has died."""
        for name, process in self.processes.items():
            if process.poll() is not None and not self.stopping.is_set():
                self._start(name)

    def arm(self, name: str, number: signal.Signals = signal.SIGKILL) -> Path:
        """Send a signal to the next process that passes this point."""
        file = self.armed / name
        whole = file.with_suffix(".part")
        whole.write_text(str(int(number)))
        return whole.rename(file)

    def armed_points(self) -> list[str]:
        """The names of the points that nobody has passed yet."""
        return [file.name for file in self.armed.iterdir()]

    def until(self, condition: Any, seconds: float | None = None) -> Any:
        """Wait for something to become true, through any connection error."""
        seconds = seconds or self.patience
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if value := condition():
                    return value
            time.sleep(0.02)
        logs = "".join(f"\n== {log.name}\n{log.read_text()[-2000:]}" for log in self.home.glob("*.log"))
        raise AssertionError(f"not within {seconds} s: {logs}")

    def post(self, path: str, key: str | None = None, **body: Any) -> dict[str, Any]:
        """POST through any crash of the API; the Idempotency-Key makes that safe."""
        headers = {"Idempotency-Key": key} if key else {}
        return self._answer("POST", path, json=body, headers=headers)

    def _answer(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """A service's answer, asked for again while it is away or not ready."""

        def ask() -> httpx.Response | None:
            answer = self.client.request(method, path, **arguments)
            return None if answer.status_code == 503 else answer

        answer: httpx.Response = self.until(ask)
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    def job(self, id: str, wait: float = 0) -> dict[str, Any]:
        """A job's document."""
        return self._answer("GET", f"/v1/jobs/{id}", params={"wait": wait})

    def finished(self, id: str) -> dict[str, Any]:
        """A job's document once it has ended."""
        return dict(self.until(lambda: (job := self.job(id, wait=5))["finished_at"] and job))

    def holder(self) -> subprocess.Popen[bytes]:
        """The worker process that holds the one attempt that runs."""
        with self.database.read() as session:
            id = session.scalars(select(Execution.worker_id).where(Execution.state == "running")).one()
        workers = [name for name, (module, *_) in self.commands.items() if module == "worker"]
        return next(self.processes[name] for name in workers if str(id).endswith(f":{self.folder(name)}"))

    def supervised(self) -> Iterator[int]:
        """Process ids of all children of attempts: session leaders that these workers started."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError, IndexError):
                environ = (entry / "environ").read_bytes()
                if f"HUSAI_FAILPOINTS={self.armed}".encode() not in environ.split(b"\0"):
                    continue
                session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
                if session == int(entry.name) and b"multiprocessing" in (entry / "cmdline").read_bytes():
                    yield session

    def settled(self) -> None:
        """Nothing is left to do, nothing is left behind, and every success has its one result."""
        self.until(lambda: not list(self.supervised()))
        self.until(self.outbox_empty)
        with self.database.read() as session:
            done = set(session.scalars(select(Execution.id).where(Execution.state == "succeeded")))
            assert set(session.scalars(select(Result.execution_id))) == done
        self.until(lambda: not any(list((self.folder(name) / "work").glob("*")) for name in self.commands))

    def outbox_empty(self) -> bool:
        """True when every message has been sent."""
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(Outbox)) == 0
