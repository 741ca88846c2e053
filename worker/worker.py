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
from itertools import chain

from sqlalchemy.exc import DBAPIError

from husai_core import assets
from services import leases
from services.accounts import private_file
from services.artifacts import Store
from services.db import Database, complain, now
from services.decisions import remember, signing_key
from services.failpoints import failpoint
from services.ids import new_id
from services.queue import CONTROL
from services.settings import Settings
from services.tables import Worker
from worker.fitness import Fitness
from worker.supervisor import Supervisor

log = logging.getLogger("husai.worker")
WORK_QUEUES = ("train", "benchmark", "stress")
REAP_SECONDS = 5.0
UNBLOCK_SECONDS = 5.0


class WorkerProcess:
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
        self.work_folder = settings.root / "work"
        self.fitness = Fitness(self.store, self.work_folder, self.drain, settings.lease_seconds, self._tell_fitness)
        self.signer = signing_key(settings) if CONTROL in queues else None
        if self.signer is not None:
            with database.write(shared=True) as session:
                remember(session, self.signer, current=True)
        shutil.rmtree(self.work_folder, ignore_errors=True)
        self.fitness.probe()
        self.store.sweep()

    def work(self, queues: Sequence[str]) -> None:
        """Claim and run until these queues are dry or the worker drains. While this host is not fit, claim nothing."""
        while self.fitness.wait():
            claim = self._claim(queues)
            if claim is None:
                return
            failpoint("claim.committed")
            log.info("job %s, execution %s, attempt %d, %s: claimed", *_names(claim))
            problem = Supervisor(self.settings, self.database, self.store, self.signer, claim, self.drain).run()
            if problem is None:
                self.fitness.succeeded()
            else:
                self.fitness.failed(problem)

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
            lost = leases.reap(session, self.settings.max_attempts, self.id, self.boot_id, expired_too=trusted)
        if lost:
            failpoint("reap.committed")
            log.warning("took back %d lost execution(s)", lost)
        return lost

    def unblock(self) -> int:
        """Queue again what waits for assets that have arrived here; returns how many."""
        with self.database.read() as session:
            waiting = leases.blocked(session, self.queues, self.devices)
        arrived = {name for name in set(chain.from_iterable(waiting.values())) if assets.is_present(name)}
        ready = [id for id, names in waiting.items() if arrived.issuperset(names)]
        if not ready:
            return 0
        with self.database.write() as session:
            ids = leases.unblock(session, ready)
        failpoint("unblock.committed")
        for id in ids:
            log.info("execution %s: its assets have arrived: %s", id, ", ".join(waiting[id]))
        return len(ids)

    def present(self, state: str = "") -> None:
        """Report that this worker is there, and whether it can run jobs."""
        problem = self.fitness.problem
        state = state or (f"unfit: {problem}" if problem else "ready")
        with self.database.write(shared=True) as session:
            row = session.get(Worker, self.id)
            if row is None:
                row = Worker(id=self.id, started_at=now())
                session.add(row)
            if row.boot_id != self.boot_id:
                row.started_at = now()
            row.boot_id, row.host, row.pid = self.boot_id, socket.gethostname(), os.getpid()
            row.queues, row.slots, row.device = self.queues, self.slots, self.settings.device_class
            row.state, row.problem, row.seen_at = state, problem, now()

    def _tell_fitness(self) -> None:
        """Report at once that this host has become fit or unfit; if the database is away, the next report says it."""
        try:
            self.present()
        except DBAPIError as error:
            complain(log, "the database could not be told about this host", error)

    def leave(self) -> None:
        """Report that this worker is gone, if the database can be told."""
        try:
            self.present("gone")
        except DBAPIError:
            log.warning("the database could not be told that this worker is gone")


def _names(claim: leases.Claim) -> tuple[str, str, int, str]:
    return claim.job_id, claim.execution_id, claim.attempt, claim.kind
