"""The local worker of embedded mode: slots that claim until their queues are dry, woken by its own relay."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from services.db import Database, complain
from services.outbox_listener import Watch
from services.queue import CONTROL
from services.settings import Settings
from worker.periodic import Chores
from worker.relay import Relay
from worker.worker import REAP_SECONDS, WORK_QUEUES, Host

log = logging.getLogger("husai.worker")
SWEEP_SECONDS = 5.0


class LocalWorker:
    """Runs jobs of all queues on this host until it is told to drain."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.host = Host(settings, database, [*WORK_QUEUES, CONTROL], settings.worker_slots)
        self.watch = Watch(database, settings.poll_seconds)
        self.relay = Relay(database, self._ring, self._waiting)
        self.drain, self.doorbell, self.rings = self.host.drain, threading.Condition(), 0

    def run(self) -> None:
        """Serve until `drain` is set and the running attempts have ended."""
        slots: list[Sequence[str]] = [WORK_QUEUES] * self.host.slots + [(CONTROL,)]
        threads = [
            threading.Thread(target=self._slot, args=(queues,), name=f"slot-{number}")
            for number, queues in enumerate(slots)
        ]
        for thread in threads:
            thread.start()
        chores = Chores([(REAP_SECONDS, self.host.reap), (10.0, self.host.present)])
        self.relay.serve(self.watch, self.drain, chores)
        self._ring(())
        for thread in threads:
            thread.join()
        self.host.leave()

    def _slot(self, queues: Sequence[str]) -> None:
        """Claim and run until there is nothing to claim; then wait for the doorbell."""
        while not self.drain.is_set():
            heard = self.rings
            try:
                self.host.work(queues)
            except Exception as error:
                complain(log, "the attempt was given up; its lease will run out", error)
                time.sleep(1)
            with self.doorbell:
                self.doorbell.wait_for(lambda heard=heard: self.rings != heard, SWEEP_SECONDS)  # type: ignore[misc]

    def _ring(self, queues: Sequence[str]) -> None:
        """Wake every slot; each looks for work of its own queues."""
        with self.doorbell:
            self.rings += 1
            self.doorbell.notify_all()

    def _waiting(self, queues: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(queues, 0)
