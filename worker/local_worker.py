"""The local worker of embedded mode: slots that claim until their queues are dry, woken by its own relay."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence

from services.db import Database, complain
from services.outbox_listener import Watch
from services.queue import CONTROL
from services.settings import Settings
from worker.periodic import Periodic
from worker.relay import Relay
from worker.worker import REAP_SECONDS, UNBLOCK_SECONDS, WORK_QUEUES, WorkerProcess

log = logging.getLogger("husai.worker")
SWEEP_SECONDS = 5.0


class LocalWorker:
    """Runs jobs of all queues on this host until it is told to drain."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.process = WorkerProcess(settings, database, [*WORK_QUEUES, CONTROL], settings.worker_slots)
        self.watch = Watch(database, settings.poll_seconds)
        self.relay = Relay(database, self._wake, self._waiting)
        self.drain = self.process.drain
        self.woken, self.wake_ups = threading.Condition(), 0

    def run(self) -> None:
        """Serve until `drain` is set and the running attempts have ended."""
        slots: list[Sequence[str]] = [WORK_QUEUES] * self.process.slots + [(CONTROL,)]
        threads = [
            threading.Thread(target=self._slot, args=(queues,), name=f"slot-{number}")
            for number, queues in enumerate(slots)
        ]
        for thread in threads:
            thread.start()
        tasks = Periodic(
            [(REAP_SECONDS, self.process.reap), (10.0, self.process.present), (UNBLOCK_SECONDS, self.process.unblock)]
        )
        self.relay.serve(self.watch, self.drain, tasks)
        self._wake(())
        for thread in threads:
            thread.join()
        self.process.leave()

    def _slot(self, queues: Sequence[str]) -> None:
        """Claim and run until there is nothing to claim; then wait to be woken."""
        while not self.drain.is_set():
            before = self.wake_ups
            try:
                self.process.work(queues)
            except Exception as error:
                complain(log, "the attempt was given up; its lease will run out", error)
                time.sleep(1)
            with self.woken:
                self.woken.wait_for(lambda before=before: self.wake_ups != before, SWEEP_SECONDS)  # type: ignore[misc]

    def _wake(self, queues: Sequence[str]) -> None:
        """Wake every slot; each looks for work of its own queues."""
        with self.woken:
            self.wake_ups += 1
            self.woken.notify_all()

    def _waiting(self, queues: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(queues, 0)
