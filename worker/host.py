"""What a worker of either mode is: it claims jobs, runs them, and reports itself."""

import logging
import os
import shutil
import socket
import threading
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from services import leases
from services.artifacts import Store
from services.db import Database, now
from services.decisions import signing_key
from services.failpoints import failpoint
from services.ids import new_id
from services.settings import Settings
from services.tables import Worker
from worker.supervisor import Supervisor

log = logging.getLogger("husai.worker")
WORK_QUEUES = ("train", "benchmark", "stress")
CONTROL = "control"


class Host:
    """One worker process of this machine: its name, its queues, and the attempts that it holds.

    The name is the machine's and the home folder's, so that a worker which is started again on the same home knows
    what its earlier boot left behind.
    """

    def __init__(self, settings: Settings, database: Database, queues: Sequence[str], slots: int) -> None:
        self.settings, self.database, self.queues, self.slots = settings, database, list(queues), slots
        self.id, self.boot_id = f"{socket.gethostname()}:{settings.root}", new_id()
        self.store, self.drain = Store(settings.artifacts), threading.Event()
        self.signer = signing_key(settings) if CONTROL in queues else None
        shutil.rmtree(settings.root / "work", ignore_errors=True)

    def work(self, queues: Sequence[str]) -> None:
        """Claim and run until these queues are dry or the worker drains."""
        while not self.drain.is_set():
            claim = self._claim(queues)
            if claim is None:
                return
            failpoint("claim.committed")
            Supervisor(self.settings, self.database, self.store, self.signer, claim, self.drain).run()

    def _claim(self, queues: Sequence[str]) -> leases.Claim | None:
        with self.database.write(shared=True) as session:
            return leases.claim(session, self.id, self.boot_id, queues, self.devices, self.settings.lease_seconds)

    @property
    def devices(self) -> list[str]:
        """For which devices jobs may run here: a lab's GPU is for what needs one, a summary runs anywhere."""
        if self.settings.lab:
            return ["cpu", "cuda"] if CONTROL in self.queues else [self.settings.device_class]
        return ["cpu", "cuda"] if self.settings.device_class == "cuda" else ["cpu"]

    def reap(self) -> int:
        """Take back executions whose lease ran out, and those of this worker's earlier boots."""
        with self.database.write() as session:
            found = leases.reap(session, self.settings.max_attempts, self.id, self.boot_id)
        if found:
            failpoint("reap.committed")
            log.warning("took back %d lost execution(s)", found)
        return found

    def present(self, state: str = "ready") -> None:
        """Report that this worker is there."""
        with self.database.write(shared=True) as session:
            row = session.get(Worker, self.id)
            if row is None:
                row = Worker(id=self.id, started_at=now())
                session.add(row)
            if row.boot_id != self.boot_id:
                row.started_at = now()
            row.boot_id, row.host, row.pid = self.boot_id, socket.gethostname(), os.getpid()
            row.queues, row.slots, row.device = self.queues, self.slots, self.settings.device_class
            row.state, row.seen_at = state, now()

    def leave(self) -> None:
        """Report that this worker is gone, if the database can be told."""
        try:
            self.present("gone")
        except DBAPIError:
            log.warning("the database could not be told that this worker is gone")
