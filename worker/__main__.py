"""`python -m worker`: run jobs until told to stop; in lab mode those of some queues, else all of this machine."""

import argparse
import fcntl
import logging
import os
import signal
import sys

from services.db import Database, await_schema
from services.settings import load
from worker import process_start

QUEUES = ("train", "benchmark", "stress", "control")


def main() -> int:
    """Serve until SIGTERM or SIGINT; a second worker on the same home is refused."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.umask(0o077)
    settings = load()
    if arguments.queues and not settings.lab:
        print("husai: --queues needs lab mode: set HUSAI_BROKER_URL", file=sys.stderr)
        return 2
    lock = open(settings.root / "worker.lock", "w")  # noqa: SIM115 (held until the process ends)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"husai: a worker already serves {settings.root}", file=sys.stderr)
        return 2
    summing_up = arguments.queues == ["control"] and settings.warm == "full"
    process_start.open_("light" if summing_up else settings.warm)
    database = Database(settings.database)
    await_schema(database)
    if settings.lab:
        from worker.celery_worker import LabWorker

        return LabWorker(settings, database, arguments.queues or QUEUES[:3]).run()
    from worker.local_worker import LocalWorker

    worker = LocalWorker(settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.drain.set())
    worker.run()
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument(
        "--queues",
        type=_queues,
        help=f"of {', '.join(QUEUES)}, separated by commas; in lab mode only [all but control]",
    )
    return parser.parse_args()


def _queues(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted({*names} - {*QUEUES}):
        raise argparse.ArgumentTypeError(f"there is no queue {unknown[0]!r}")
    return names


if __name__ == "__main__":
    sys.exit(main())
