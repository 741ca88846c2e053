"""A lab on this machine: private Postgres and Redis, an API, a control worker and two workers, kept alive."""

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.faults.keeper import Keeper
from tests.servers import Postgres, Redis

WORKERS = ("worker-0", "worker-1")


class Lab(Keeper):
    """Every process has a home of its own, as on hosts of their own; the artifact folder is shared."""

    def __init__(self, home: Path, pair: str, **environment: str) -> None:
        super().__init__(home, HUSAI_ARTIFACT_URL=str(home / "artifacts"), **environment)
        self.servers = {"postgres": Postgres(home / "postgres", pair), "redis": Redis(home / "redis", pair)}
        self.commands = {
            "api": ["api", "--port", str(self.port)],
            "control": ["worker", "--queues", "control"],
            **{name: ["worker"] for name in WORKERS},
        }

    def folder(self, name: str) -> Path:
        """The home folder of a process."""
        return self.home / name

    def __enter__(self) -> Self:
        for server in self.servers.values():
            server.start()
        self.environment |= {
            "HUSAI_DATABASE_URL": self.servers["postgres"].url,
            "HUSAI_BROKER_URL": self.servers["redis"].url,
            "HUSAI_SIGNING_KEY_FILE": str(self.home / "signing.key"),
        }
        subprocess.run([sys.executable, "-m", "migrations"], env=self.environment, check=True)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for server in self.servers.values():
            server.stop()

    def _keep(self) -> None:
        """Start servers again, too, when they die."""
        while not self.stopping.wait(0.02):
            for server in self.servers.values():
                if not server.alive and not self.stopping.is_set():
                    server.start()
            self._revive()
