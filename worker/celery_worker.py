"""The lab worker: Celery brings wake-up messages to a free slot, which claims from the database until its queues are
dry.

A message carries no job, so one that is lost, late or delivered twice changes nothing. Whoever consumes `control` also
sends the messages, takes back what lost workers held, and sends again where messages were lost. Where Redis stays away,
free slots look for work by themselves.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import Celery, signals
from kombu import Queue
from kombu.exceptions import ChannelError
from sqlalchemy import delete

from services.db import Database, complain, now
from services.outbox_listener import Watch
from services.queue import CONTROL, oldest
from services.settings import Settings
from services.tables import Worker
from worker.periodic import Periodic, Task
from worker.pool import PromptPool
from worker.relay import Relay
from worker.worker import REAP_SECONDS, UNBLOCK_SECONDS, WORK_QUEUES, WorkerProcess

log = logging.getLogger("husai.worker")
WAKE_UP = "husai.wake_up"
SWEEP_SECONDS = 5.0
PRESENCE_SECONDS = 10.0
FORGET_SECONDS = 7 * 86_400


def create_app(settings: Settings) -> Celery:
    """The Celery application of one broker: its queues carry messages that are acknowledged as soon as they arrive."""
    app = Celery("husai", broker=settings.broker_url, backend=None, set_as_current=False)
    app.conf.update(
        broker_transport_options={
            "global_keyprefix": "husai:", "health_check_interval": 25, "socket_keepalive": True, "socket_timeout": 30,
            "unacked_restore_interval": 5, "unacked_restore_throttle": 1, "visibility_timeout": 3600,
        },
        broker_connection_retry_on_startup=True, broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_queues=[Queue(name) for name in (*WORK_QUEUES, CONTROL)], task_create_missing_queues=False,
        task_acks_late=False, task_ignore_result=True, task_default_delivery_mode="persistent",
        task_serializer="json", accept_content=["json"],
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1},
        worker_disable_prefetch=True, worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=settings.grace_seconds,
        worker_enable_remote_control=False, worker_send_task_events=False,
        worker_hijack_root_logger=False, worker_redirect_stdouts=False,
    )  # fmt: skip
    return app


class LabWorker:
    """One worker process of a lab, with as many slots as its host has for jobs."""

    def __init__(self, settings: Settings, database: Database, queues: Sequence[str]) -> None:
        self.settings, self.database = settings, database
        self.process = WorkerProcess(settings, database, queues, settings.worker_slots)
        self.app, self.slots = create_app(settings), threading.Semaphore(self.process.slots)
        self.app.task(name=WAKE_UP)(self._woken)
        self._overdue: str | None = None

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT and until the running attempts have ended; returns the exit status."""
        (self.settings.root / "alive").unlink(missing_ok=True)
        signals.worker_shutting_down.connect(self._stop, weak=False)
        worker: Any = self.app.Worker(
            pool=PromptPool, concurrency=self.process.slots, queues=self.process.queues,
            hostname=f"{self.process.boot_id}@%h", without_gossip=True, without_mingle=True, without_heartbeat=True,
            loglevel="WARNING", quiet=True,
        )  # fmt: skip
        worker._isatty = True  # otherwise SIGHUP would start the process again, without an end to what it runs
        threads = self._threads()
        for thread in threads:
            thread.start()
        try:
            worker.start()
        finally:
            self.process.drain.set()
        for thread in threads:
            thread.join()
        self.process.leave()
        return int(worker.exitcode or 0)

    def _threads(self) -> list[threading.Thread]:
        """What goes on beside the jobs. Whatever may wait for the broker has a thread of its own."""
        over = self.process.drain
        loops: dict[str, Callable[[], object]] = {
            "periodic": lambda: Periodic(self._tasks()).until(over),
            "presence": lambda: Periodic([(PRESENCE_SECONDS, self._alive)]).until(over),
        }
        if CONTROL in self.process.queues:
            relay = Relay(self.database, self._send, self._waiting)
            watch = Watch(self.database, self.settings.poll_seconds)
            loops["relay"] = lambda: relay.serve(watch, over)
            loops["sweep"] = lambda: Periodic([(SWEEP_SECONDS, relay.sweep)]).until(over)
        return [threading.Thread(target=loop, name=name) for name, loop in loops.items()]

    def _stop(self, **_: Any) -> None:
        """Let the running attempts checkpoint and hand back what they hold; Celery waits for that."""
        self.process.drain.set()

    def _woken(self) -> None:
        """What a wake-up message does."""
        self._serve(wait=True)

    def _serve(self, wait: bool) -> None:
        """Work the queues off in a free slot."""
        if not self.slots.acquire(blocking=wait):
            return
        try:
            self.process.work(self.process.queues)
        except Exception as error:
            complain(log, "the attempt was given up; its lease will run out", error)
        finally:
            self.slots.release()

    def _tasks(self) -> list[Task]:
        control = CONTROL in self.process.queues
        tasks: list[Task] = [
            (REAP_SECONDS if control else math.inf, self.process.reap),
            (SWEEP_SECONDS, self._look),
            (UNBLOCK_SECONDS, self.process.unblock),
        ]
        return [*tasks, (3600, self._forget)] if control else tasks

    def _alive(self) -> None:
        """Report presence; leave a sign for the health check once the database and the broker have answered."""
        self.process.present()
        with self.app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
        (self.settings.root / "alive").touch()

    def _look(self) -> None:
        """Start on work that was still queued at the last look, too: no message has told of it."""
        with self.database.read() as session:
            longest_queued = oldest(session, self.process.queues, self.process.devices)
        overdue, self._overdue = longest_queued is not None and longest_queued == self._overdue, longest_queued
        if overdue:
            threading.Thread(target=self._serve, args=(False,), name="overdue").start()

    def _forget(self) -> None:
        """Drop workers that nobody has seen for a week."""
        with self.database.write(shared=True) as session:
            session.execute(delete(Worker).where(Worker.seen_at < now() - FORGET_SECONDS))

    def _send(self, queues: Sequence[str]) -> None:
        for queue in queues:
            self.app.send_task(WAKE_UP, queue=queue)

    def _waiting(self, queues: Sequence[str]) -> Mapping[str, int]:
        with self.app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return {queue: _length(connection.default_channel, queue) for queue in queues}


def _length(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except ChannelError:
        return 0
