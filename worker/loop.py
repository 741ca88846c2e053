"""The local worker: slots that claim until their queues are dry, a relay that wakes them, and a reaper."""

import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import delete, select

from services import leases
from services.artifacts import Store
from services.db import Database, now
from services.decisions import signing_key
from services.failpoints import failpoint
from services.ids import new_id
from services.settings import Settings
from services.tables import Outbox, Worker
from worker.supervisor import Supervisor

log = logging.getLogger("husai.worker")
WORK_QUEUES = ("train", "benchmark", "stress")
SWEEP_SECONDS = 5.0


class LocalWorker:
    """Runs jobs of all queues on this host until it is told to drain."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.store, self.signer = Store(settings.artifacts), signing_key(settings)
        self.id, self.boot_id = f"{socket.gethostname()}:{settings.root}", new_id()
        self.devices = ["cpu", "cuda"] if settings.device_class == "cuda" else ["cpu"]
        self.drain, self.doorbell, self.rings = threading.Event(), threading.Condition(), 0

    def run(self) -> None:
        """Serve until `drain` is set and the running attempts have ended."""
        shutil.rmtree(self.settings.root / "work", ignore_errors=True)
        self._present("ready")
        slots: list[Sequence[str]] = [WORK_QUEUES] * self.settings.worker_slots + [("control",)]
        threads = [
            threading.Thread(target=self._slot, args=(queues,), name=f"slot-{number}")
            for number, queues in enumerate(slots)
        ]
        for thread in threads:
            thread.start()
        self._tend()
        for thread in threads:
            thread.join()
        self._present("gone")

    def _slot(self, queues: Sequence[str]) -> None:
        """Claim and run until there is nothing to claim; then wait for the doorbell."""
        while not self.drain.is_set():
            heard = self.rings
            try:
                claim = self._claim(queues)
                if claim is not None:
                    failpoint("claim.committed")
                    Supervisor(self.settings, self.database, self.store, self.signer, claim, self.drain).run()
                    continue
            except Exception:
                log.exception("the attempt was given up; its lease will run out")
                time.sleep(1)
            with self.doorbell:
                self.doorbell.wait_for(lambda heard=heard: self.rings != heard, SWEEP_SECONDS)  # type: ignore[misc]

    def _claim(self, queues: Sequence[str]) -> leases.Claim | None:
        with self.database.write() as session:
            return leases.claim(session, self.id, self.boot_id, queues, self.devices, self.settings.lease_seconds)

    def _tend(self) -> None:
        """Relay, reap and report presence, each at its own pace, until told to drain."""
        chores: list[tuple[float, Callable[[], object]]] = [(SWEEP_SECONDS, self._reap), (10.0, self._present)]
        due = [0.0] * len(chores)
        changed = self._change_detector()
        while not self.drain.wait(self.settings.poll_seconds):
            try:
                if changed():
                    self.relay()
                for index, (period, chore) in enumerate(chores):
                    if time.monotonic() >= due[index]:
                        due[index] = time.monotonic() + period
                        chore()
            except Exception:
                log.exception("a chore failed; it is tried again")
                time.sleep(1)
        self._ring()

    def _change_detector(self) -> Callable[[], bool]:
        """Whether another connection has committed since the last call; always true except on SQLite."""
        if not self.database.sqlite:
            return lambda: True
        connection, seen = self.database.engine.raw_connection(), [-1]

        def changed() -> bool:
            version = connection.cursor().execute("PRAGMA data_version").fetchone()[0]
            was, seen[0] = seen[0], version
            return bool(version != was)

        return changed

    def relay(self) -> None:
        """Ring once for all rows of the outbox, then delete them; a crash in between only rings twice."""
        with self.database.read() as session:
            rows = list(session.scalars(select(Outbox.id)))
        if not rows:
            return
        self._ring()
        failpoint("relay.rung")
        with self.database.write() as session:
            session.execute(delete(Outbox).where(Outbox.id.in_(rows)))
        failpoint("relay.deleted")

    def _ring(self) -> None:
        with self.doorbell:
            self.rings += 1
            self.doorbell.notify_all()

    def _reap(self) -> None:
        with self.database.write() as session:
            found = leases.reap(session, self.settings.max_attempts, self.id, self.boot_id)
        if found:
            failpoint("reap.committed")
            log.warning("took back %d lost execution(s)", found)

    def _present(self, state: str = "ready") -> None:
        with self.database.write() as session:
            row = session.get(Worker, self.id)
            if row is None:
                row = Worker(id=self.id, started_at=now())
                session.add(row)
            if row.boot_id != self.boot_id:
                row.started_at = now()
            row.boot_id, row.host, row.pid = self.boot_id, socket.gethostname(), os.getpid()
            row.queues, row.slots = [*WORK_QUEUES, "control"], self.settings.worker_slots
            row.device, row.state, row.seen_at = self.settings.device_class, state, now()
