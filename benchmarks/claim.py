"""How long a claim takes among many queued jobs, on SQLite and on Postgres.

The earlier query, which sorted all that was queued, is timed beside it for the choice alone. Owners, queues and
priority classes are mixed. A claim is the whole transaction: the choice, the new attempt, the job's
state and events, and the commit; one changed row and its commit are timed beside, which is the disk's share.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sqlalchemy import func, insert, select, text, update  # noqa: E402
from sqlalchemy.orm import Session, aliased  # noqa: E402

from husai_core import kinds  # noqa: E402
from services import leases, queue  # noqa: E402
from services.db import Database, upgrade  # noqa: E402
from services.ids import new_id  # noqa: E402
from services.states import State  # noqa: E402
from services.tables import Execution, Job, Owner  # noqa: E402
from tests.servers import Postgres, pairs  # noqa: E402

QUEUES, DEVICES, KIND = ("train", "stress", "benchmark"), ("cpu",), "train.activations"
SPEC = {"source": "synthetic"}
LIMIT_MS = 10.0
PAGE = 5000


def rows(number: int, owners: int, digest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One queued execution, and the job that follows it."""
    shared = {
        "kind": KIND, "spec": SPEC, "inputs": {}, "device": "cpu", "environment": {}, "state": State.QUEUED,
        "owner_id": f"owner-{number * number % owners}", "priority": number // 7 % 4, "created_at": 0.0, "version": 1,
    }  # fmt: skip
    execution = shared | {
        "id": new_id("execution"), "digest": digest, "queue": QUEUES[number % 3], "shared": False,
        "attempt": 0, "lost": 0, "cancel_requested": False,
    }  # fmt: skip
    job = shared | {
        "id": new_id("job"), "labels": [], "reuse": True, "private": False, "execution_id": execution["id"],
    }  # fmt: skip
    return execution, job


def fill(database: Database, count: int, owners: int) -> None:
    """Queue many jobs of many owners."""
    digest = kinds.job_digest(KIND, SPEC, {}, "cpu")
    with database.write() as session:
        names = [
            {"id": f"owner-{i}", "name": f"owner {i}", "role": "researcher", "created_at": 0.0} for i in range(owners)
        ]
        session.execute(insert(Owner), names)
        for start in range(0, count, PAGE):
            page = [rows(number, owners, digest) for number in range(start, min(count, start + PAGE))]
            session.execute(insert(Execution), [execution for execution, _ in page])
            session.execute(insert(Job), [job for _, job in page])
    if not database.sqlite:
        settle(database)


def settle(database: Database) -> None:
    """Do what Postgres does by itself while so many jobs gather. SQLite does nothing of the kind, and has no help."""
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for command in ("VACUUM ANALYZE", "CHECKPOINT"):
            connection.execute(text(command))


def earlier(session: Session) -> object:
    """The choice as it was before: a sort of everything queued."""
    other = aliased(Execution)
    running = (
        select(other.owner_id, func.count().label("count"))
        .where(other.state == State.RUNNING)
        .group_by(other.owner_id)
        .subquery()
    )
    query = (
        select(Execution)
        .outerjoin(running, running.c.owner_id == Execution.owner_id)
        .where(Execution.state == State.QUEUED, Execution.queue.in_(QUEUES), Execution.device.in_(DEVICES))
        .where(Execution.kind.in_(kinds.names()))
        .order_by(Execution.priority, func.coalesce(running.c.count, 0), Execution.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=Execution)
    )
    return session.scalar(query)


def claim(session: Session) -> object:
    """One claim."""
    return leases.claim(session, "worker", "boot", QUEUES, DEVICES, 60)


def choose(session: Session) -> object:
    """The choice alone, as it is now."""
    return queue.lock_next(session, QUEUES, DEVICES)


def commit(session: Session) -> object:
    """One changed row and its commit, which waits for the disk: no claim can be faster."""
    return session.execute(update(Owner).where(Owner.id == "owner-0").values(role="researcher"))


def measure(database: Database, work: Callable[[Session], object], count: int) -> list[float]:
    """Milliseconds of each of `count` transactions."""
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        with database.write(shared=True) as session:
            assert work(session) is not None
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def databases(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and URL of an empty database of either kind."""
    yield "SQLite", f"sqlite:///{folder / 'husai.db'}"
    with Postgres(folder / "postgres", pairs()[0]) as server:
        yield "Postgres", server.create("claim")


def main() -> None:
    """Measure and print; the exit status is 1 if a median claim takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=100_000, help="jobs in the queue [100000]")
    parser.add_argument("--owners", type=int, default=20, help="of these jobs [20]")
    parser.add_argument("--count", type=int, default=200, help="claims [200]")
    arguments = parser.parse_args()
    print(f"{arguments.queued} queued jobs of {arguments.owners} owners; {os.cpu_count()} cores, load average"
          f" {os.getloadavg()[0]:.2f}; milliseconds")  # fmt: skip
    slow = False
    with tempfile.TemporaryDirectory() as folder:
        for name, url in databases(Path(folder)):
            upgrade(url)
            database = Database(url)
            fill(database, arguments.queued, arguments.owners)
            measures = {
                "claim": (claim, arguments.count),
                "choice": (choose, arguments.count),
                "one row": (commit, arguments.count),
                "earlier choice": (earlier, 5),
            }
            for title, (work, count) in measures.items():
                taken = sorted(measure(database, work, count))
                median = statistics.median(taken)
                slow |= title == "claim" and median > LIMIT_MS
                print(f"{name:9} {title:15} median {median:7.2f}   99 % {taken[len(taken) * 99 // 100]:7.2f}")
            database.close()
    sys.exit(int(slow))


if __name__ == "__main__":
    main()
