"""What a worker of either mode is: it claims jobs, runs them, and reports itself."""

import logging
import math
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from services import leases
from services.accounts import private_file
from services.artifacts import Store
from services.db import Database, now
from services.decisions import remember, signing_key
from services.failpoints import failpoint
from services.ids import new_id
from services.queue import CONTROL
from services.settings import Settings
from services.tables import Worker
from worker.supervisor import Supervisor

log = logging.getLogger("husai.worker")
WORK_QUEUES = ("train", "benchmark", "stress")
REAP_SECONDS = 5.0


class Host:
    """One worker process of this machine: its name, its queues, and the attempts that it holds.

    The name is the machine's and the home folder's, with a number kept there, so that a worker which is started again
    on the same home knows what its earlier boot left behind, and no other takes it for its own.
    """

    def __init__(self, settings: Settings, database: Database, queues: Sequence[str], slots: int) -> None:
        self.settings, self.database, self.queues, self.slots = settings, database, list(queues), slots
        number = private_file(settings.root / "worker.id", lambda: secrets.token_hex(4))
        self.id, self.boot_id = f"{socket.gethostname()}-{number}:{settings.root}", new_id()
        self._looked = self._doubted_until = -math.inf
        self.store, self.drain = Store(settings.artifacts), threading.Event()
        self.signer = signing_key(settings) if CONTROL in queues else None
        if self.signer is not None:
            with database.write(shared=True) as session:
                remember(session, self.signer, current=True)
        shutil.rmtree(settings.root / "work", ignore_errors=True)
        self.store.sweep()

    def work(self, queues: Sequence[str]) -> None:
        """Claim and run until these queues are dry or the worker drains.

        A host that could not do its part, because its disk is full, say, waits longer each time before it takes more.
        """
        pause = 0.0
        while not self.drain.wait(pause):
            claim = self._claim(queues)
            if claim is None:
                return
            failpoint("claim.committed")
            supervisor = Supervisor(self.settings, self.database, self.store, self.signer, claim, self.drain)
            pause = 0.0 if supervisor.run() else min(2 * pause or 1.0, self.settings.lease_seconds)

    def _claim(self, queues: Sequence[str]) -> leases.Claim | None:
        with self.database.write(shared=True) as session:
            return leases.claim(session, self.id, self.boot_id, queues, self.devices, self.settings.lease_seconds)

    @property
    def devices(self) -> list[str]:
        """For which devices jobs may run here: a lab's GPU is for what needs one."""
        device = self.settings.device_class
        return [device] if self.settings.lab or device == "cpu" else ["cpu", "cuda"]

    def reap(self) -> int:
        """Take back executions whose lease ran out, and those of this worker's earlier boots.

        After a time in which the database may have been away, a lease that ran out says nothing about its worker, who
        gets another lease's time to renew it.
        """
        lease, before, self._looked = self.settings.lease_seconds, self._looked, time.monotonic()
        if self._looked - before > max(lease / 3, 2 * REAP_SECONDS):
            self._doubted_until = self._looked + lease
        trusted = self._looked >= self._doubted_until
        with self.database.write() as session:
            found = leases.reap(session, self.settings.max_attempts, self.id, self.boot_id, expired_too=trusted)
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
