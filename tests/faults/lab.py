"""A lab on this machine: private Postgres and Redis, an API, a control worker and two workers, kept alive."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from redis import Redis as Client
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.faults.keeper import Keeper
from tests.servers import Postgres, Redis

WORKERS = ("worker-0", "worker-1")
VICTIMS = ("child", "worker", "control", "api", "redis", "postgres")


class Lab(Keeper):
    """Every process has a home of its own, as on hosts of their own; the artifact folder is shared.

    Without a `pair` of servers of its own, the environment names those to use.
    """

    def __init__(self, home: Path, pair: str | None, **environment: str) -> None:
        super().__init__(home, HUSAI_ARTIFACT_URL=str(home / "artifacts"), **environment)
        self.servers: dict[str, Postgres | Redis] = {}
        if pair:
            self.servers = {"postgres": Postgres(home / "postgres", pair), "redis": Redis(home / "redis", pair)}
        self.down: set[str] = set()
        self.commands = {
            "api": ["api", "--port", str(self.port)],
            "control": ["worker", "--queues", "control"],
            **{name: ["worker"] for name in WORKERS},
        }

    @property
    def redis(self) -> Client:
        """A client of the broker, which waits while that is being killed and started."""
        return Client.from_url(self.environment["HUSAI_BROKER_URL"], retry=Retry(ConstantBackoff(0.1), 200))

    def folder(self, name: str) -> Path:
        """The home folder of a process."""
        return self.home / name

    def __enter__(self) -> Self:
        for server in self.servers.values():
            server.start()
        names = {"postgres": "HUSAI_DATABASE_URL", "redis": "HUSAI_BROKER_URL"}
        self.environment |= {names[name]: server.url for name, server in self.servers.items()}
        subprocess.run([sys.executable, "-m", "migrations"], env=self.environment, check=True)
        return super().__enter__()

    def _leave(self) -> None:
        for server in self.servers.values():
            server.stop()

    def _revive(self) -> None:
        """Start servers again, too, but for those that are to stay down."""
        for name, server in self.servers.items():
            if not server.alive and name not in self.down and not self.stopping.is_set():
                with suppress(AssertionError):  # killed again before it was up
                    server.start()
        super()._revive()

    def kill(self, victim: str) -> None:
        """Kill a server, a process, both workers, or every child of an attempt."""
        if victim in self.servers:
            self.servers[victim].kill()
        elif victim == "child":
            for child in self.supervised():
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
        else:
            for name in WORKERS if victim == "worker" else [victim]:
                self.processes[name].kill()

    def stopped(self) -> list[int]:
        """Process ids of this lab that are stopped."""
        pids = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, IndexError):
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state == "T" and f"HUSAI_FAILPOINTS={self.armed}".encode() in (entry / "environ").read_bytes():
                    pids.append(int(entry.name))
        return pids
