"""How long a job stands still when its worker dies, with the settings of production, beside what the design allows.

The clock starts with the signal and stops when the job's next attempt reports progress, so it includes the start of a
process, its imports and the reading of the checkpoint. `claimed` is when the next attempt was claimed.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from services.settings import Settings  # noqa: E402
from tests.faults.chains import ENDLESS, long_run  # noqa: E402
from tests.faults.lab import WORKERS, Lab  # noqa: E402
from tests.servers import pairs  # noqa: E402

LEASE = Settings.model_fields["lease_seconds"].default
GRACE = Settings.model_fields["grace_seconds"].default


@dataclass(frozen=True)
class Recovery:
    """Seconds since the signal; `ended` is when the process that got it was gone."""

    ended: float
    claimed: float
    working: float


def interrupt(lab: Lab, number: signal.Signals, name: str, alone: bool) -> Recovery:
    """Signal the worker that holds a job, and wait until its next attempt works.

    Args:
        lab: two workers, warm.
        number: SIGKILL, or SIGTERM to drain.
        name: of this case, for its jobs.
        alone: the other worker is stopped, so that only the same host can go on.
    """
    job = long_run(lab, name, ENDLESS)
    holder = lab.holder()
    other = next(lab.processes[worker] for worker in WORKERS if lab.processes[worker] is not holder)
    if alone:
        other.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    holder.send_signal(number)
    holder.wait()
    ended = time.monotonic() - start
    claimed, working = resumed(lab, job["id"], start)
    settle(lab, job["id"], other)
    return Recovery(ended, claimed, working)


def resumed(lab: Lab, job_id: str, start: float) -> tuple[float, float]:
    """Seconds from `start` until the second attempt is claimed, and until it works."""
    lab.until(lambda: lab.job(job_id)["attempt"] == 2, seconds=300)
    claimed = time.monotonic() - start
    lab.until(lambda: progressed(lab, job_id), seconds=300)
    return claimed, time.monotonic() - start


def settle(lab: Lab, job_id: str, stopped: subprocess.Popen[bytes]) -> None:
    """Let a stopped worker go on, and end the job."""
    stopped.send_signal(signal.SIGCONT)
    lab.post(f"/v1/jobs/{job_id}:cancel")
    lab.settled()


def progressed(lab: Lab, job_id: str) -> bool:
    """Whether the second attempt has reported work."""
    query: dict[str, Any] = {"type": ["attempt", "progress"], "limit": 1000}
    answer = lab.client.get(f"/v1/jobs/{job_id}/events", params=query, headers={"Accept": "application/json"})
    types: list[Any] = [event["type"] for event in answer.json()["items"]]
    return types.count("attempt") == 2 and types[-1] == "progress"


def vanish(lab: Lab, name: str) -> Recovery:
    """A worker's host is gone for good: it is stopped, and whatever it had goes on elsewhere."""
    job = long_run(lab, name, ENDLESS)
    holder = lab.holder()
    start = time.monotonic()
    holder.send_signal(signal.SIGSTOP)
    claimed, working = resumed(lab, job["id"], start)
    settle(lab, job["id"], holder)
    return Recovery(0.0, claimed, working)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each case [3]")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder) / "home", pairs()[0], HUSAI_WARM="full") as lab:
        cases: dict[str, tuple[float, Callable[[str], Recovery]]] = {
            "killed, same host alone": (5, lambda name: interrupt(lab, signal.SIGKILL, name, alone=True)),
            "killed, another host idle": (5, lambda name: interrupt(lab, signal.SIGKILL, name, alone=False)),
            "told to stop, another idle": (GRACE, lambda name: interrupt(lab, signal.SIGTERM, name, alone=False)),
            "host vanished": (LEASE + 10, lambda name: vanish(lab, name)),
        }
        print(f"lease {LEASE:.0f} s; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.2f}")
        print(f"seconds since the signal   ended  claimed  working  (medians of {rounds})   working / limit")
        for name, (limit, case) in cases.items():
            recoveries = [case(f"{name}-{turn}".replace(" ", "-")) for turn in range(rounds)]
            names = ("ended", "claimed", "working")
            moments = [statistics.median(getattr(recovery, moment) for recovery in recoveries) for moment in names]
            ratios = sorted(recovery.working / limit for recovery in recoveries)
            figures = "".join(f"{seconds:9.2f}" for seconds in moments)
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"{name:26}{figures}   {ratio} of {limit:.0f} s")


if __name__ == "__main__":
    main()
