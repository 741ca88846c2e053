"""From a job's submission until its process runs the kind's code, on warm and idle workers, in both modes.

The clock starts before the POST is sent and stops at the manifest's `started_at`, which has whole milliseconds. Lab
mode is held against bare Celery in the same rounds. Modes take turns, so that a change of the machine hits them all.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from redis import Redis  # noqa: E402

from benchmarks import _peer  # noqa: E402
from services.settings import Settings  # noqa: E402
from tests.faults.keeper import Keeper  # noqa: E402
from tests.faults.lab import Lab  # noqa: E402
from tests.servers import pairs  # noqa: E402
from worker.celery_worker import create_app  # noqa: E402

JOB = {
    "kind": "train.activations",
    "spec": {"source": "synthetic", "world": {"rows": 64, "n_features": 8, "d_model": 8}},
    "reuse": "never",
}
LAB, PEER = "lab", "bare Celery"
WARM_RUNS, COLD_SECONDS = 5, 1.0


@dataclass(frozen=True)
class Sample:
    """Seconds since just before the submission."""

    answered: float
    claimed: float
    running: float


Measure = Callable[[], Sample]


def through(service: Keeper) -> Sample:
    """One job of a service, from its submission to its end."""
    before = time.time()
    job = service.client.post("/v1/jobs", json=JOB).raise_for_status().json()
    answered = time.time()
    while not job["finished_at"]:
        job = fetch(service, f"jobs/{job['id']}", wait=30)
    assert job["state"] == "succeeded", job
    (attempt,) = fetch(service, f"jobs/{job['id']}/events", type="attempt")["items"]
    index = fetch(service, f"artifacts/{job['outputs']['manifest'][0]}")
    manifest = fetch(service, f"artifacts/{index['files']['manifest.json']['sha256']}")
    return Sample(answered - before, unix(attempt["at"]) - before, unix(manifest["started_at"]) - before)


def fetch(service: Keeper, path: str, **query: Any) -> Any:
    """A JSON document of the API."""
    headers = {"Accept": "application/json"}
    return service.client.get(f"/v1/{path}", params=query, headers=headers).raise_for_status().json()


def unix(text: str) -> float:
    """Unix seconds of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def bare_celery(environment: dict[str, str], log: Path) -> Iterator[Measure]:
    """A Celery worker beside the lab's, on another database of the same Redis."""
    url = environment["HUSAI_BROKER_URL"].removesuffix("/0") + "/1"
    app = create_app(Settings(broker_url=url, database_url=environment["HUSAI_DATABASE_URL"]))
    command = [sys.executable, "-c", "from benchmarks import _peer; _peer.serve()"]
    with log.open("wb") as out, Redis.from_url(url) as redis:
        worker = subprocess.Popen(command, env={**environment, "HUSAI_BROKER_URL": url}, stdout=out, stderr=out)

        def measure() -> Sample:
            before = time.time()
            app.send_task(_peer.TASK, queue=_peer.QUEUE)
            answered = time.time()
            heard: Any = redis.blpop([_peer.STARTED], _peer.SECONDS)
            assert heard, log.read_text()
            return Sample(answered - before, float("nan"), float(heard[1]) - before)

        try:
            yield measure
        finally:
            worker.terminate()
            worker.wait(30)


@contextmanager
def modes(home: Path) -> Iterator[dict[str, Measure]]:
    """Everything that is measured, running side by side and warm."""
    environment = {"HUSAI_WARM": os.environ.get("HUSAI_WARM", "full"), "HUSAI_FAILPOINTS": ""}
    embedded, lab = Keeper(home / "embedded", **environment), Lab(home / "lab", pairs()[0], **environment)
    del lab.commands["worker-1"]
    with ExitStack() as stack:
        for service in (embedded, lab):
            stack.enter_context(service)
            service.stopping.set()  # a process that dies is not started again, and the benchmark fails
        peer = stack.enter_context(bare_celery(lab.environment, home / "peer.log"))
        measures: dict[str, Measure] = {"embedded": lambda: through(embedded), LAB: lambda: through(lab), PEER: peer}
        for measure in measures.values():
            warm_up(measure)
        yield measures


def warm_up(measure: Measure) -> None:
    """Run until processes come warm several times in a row; nothing of this counts."""
    warm = 0
    for _ in range(20 * WARM_RUNS):
        warm = warm + 1 if measure().running < COLD_SECONDS else 0
        if warm == WARM_RUNS:
            return
        time.sleep(0.5)


def take(measure: Measure, count: int) -> list[Sample]:
    """One after another, with pauses that are in step with no poll."""
    samples = []
    for _ in range(count):
        time.sleep(random.uniform(0.05, 0.1))
        samples.append(measure())
    return samples


def median(samples: Sequence[Sample], moment: str = "running") -> float:
    """The median of one of the moments, in milliseconds."""
    return 1e3 * float(statistics.median(getattr(sample, moment) for sample in samples))


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The least and the greatest of some values."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def show(name: str, rounds: Sequence[Sequence[Sample]]) -> None:
    """Print one mode's row of the table."""
    runs = sorted(1e3 * sample.running for samples in rounds for sample in samples)
    p50, p90, p99 = (runs[min(len(runs) - 1, len(runs) * percent // 100)] for percent in (50, 90, 99))
    medians = spread([median(samples) for samples in rounds])
    print(f"{name:12}{p50:7.0f}{p90:7.0f}{p99:7.0f}{runs[-1]:7.0f}   {medians}")
    every = [sample for samples in rounds for sample in samples]
    moments = ("answered", "running") if name == PEER else ("answered", "claimed", "running")
    print(f"{'':12}p50 of its parts: " + ", ".join(f"{moment} at {median(every, moment):.0f}" for moment in moments))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="submissions in each mode [200]")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each mode [5]")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, modes(Path(folder)) as measures:
        rounds: dict[str, list[list[Sample]]] = {name: [] for name in measures}
        for _ in range(arguments.rounds):
            for name, measure in measures.items():
                rounds[name].append(take(measure, max(1, arguments.count // arguments.rounds)))
        print(f"{os.cpu_count()} cores, load average {load:.2f} before and {os.getloadavg()[0]:.2f} after")
    print(f"ms since submission  p50    p90    p99    max   p50 of each of {arguments.rounds} rounds")
    for name, taken in rounds.items():
        show(name, taken)
    ratios = [median(ours) / median(theirs) for ours, theirs in zip(rounds[LAB], rounds[PEER], strict=True)]
    print(f"{LAB} / {PEER}, p50: {statistics.median(ratios):.2f} ({spread(ratios, 2)} over the rounds)")


if __name__ == "__main__":
    main()
