"""`python -m worker`: the local worker of embedded mode."""

import fcntl
import logging
import os
import signal
import sys
import time
from multiprocessing import forkserver, get_context

from services.db import Database, at_head
from services.settings import Settings

CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # one parallel region before a fork makes every child hang
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow their neighbours down
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS does not repeat itself
}


def main() -> int:
    """Serve until SIGTERM or SIGINT; a second worker on the same home is refused."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings()
    lock = open(settings.root / "worker.lock", "w")  # noqa: SIM115 (held until the process ends)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"husai: a worker already serves {settings.root}", file=sys.stderr)
        return 2
    os.environ |= CHILD_ENVIRONMENT
    get_context("forkserver").set_forkserver_preload(["worker.warm"])
    forkserver.ensure_running()
    database = Database(settings.database)
    while not at_head(database):
        time.sleep(0.1)

    from worker.loop import LocalWorker

    worker = LocalWorker(settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.drain.set())
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
