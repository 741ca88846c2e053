"""Bare Celery, the peer of lab mode: the same broker and pool settings, the same warm process, and no database."""

import os
import time
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from typing import Any

QUEUE, TASK, STARTED = "train", "peer.run", "peer:started"
SECONDS = 120


def child(pipe: Connection) -> None:
    """What the task's process runs: it leads a group of its own, as a job's does, and says when it began."""
    os.setsid()
    pipe.send(time.time())


def run() -> None:
    """The task: start a process, wait for its end, and publish when it began."""
    from redis import Redis

    context = get_context("forkserver")
    pipe, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    started = pipe.recv()
    process.join()
    with Redis.from_url(os.environ["HUSAI_BROKER_URL"]) as redis:
        redis.rpush(STARTED, started)


def serve() -> None:
    """The worker's main function; ends on SIGTERM."""
    from services.settings import load
    from worker.celery_worker import create_app
    from worker.pool import PromptPool
    from worker.process_start import CHILD_ENVIRONMENT

    os.environ |= CHILD_ENVIRONMENT
    get_context("forkserver").set_forkserver_preload(["worker.warm", __name__])
    forkserver.ensure_running()
    app = create_app(load())
    app.task(name=TASK)(run)
    worker: Any = app.Worker(
        pool=PromptPool, concurrency=1, queues=[QUEUE], without_gossip=True, without_mingle=True,
        without_heartbeat=True, loglevel="WARNING", quiet=True,
    )  # fmt: skip
    worker.start()
