"""How many requests a second the service answers beside MLflow's tracking server, in one run, each on SQLite.

Reads of a recorded decision are held against reads of a run, and submissions of jobs against creations of runs: ten
connections that each wait for one answer before they ask again. The servers take turns within every round, so that a
change of the machine hits both. MLflow is installed beside: `make bench-service`, or `--mlflow PYTHON`.
"""

import argparse
import itertools
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from tests.api.serving import Server, start, stop  # noqa: E402
from tests.api.test_gates import judge, make_candidate  # noqa: E402

CONNECTIONS = 10
TARGETS = {"reads": 15.0, "submits": 3.0}
Requests = Iterator[bytes]


def request(method: str, path: str, key: str = "", body: Any = None) -> bytes:
    """The bytes of one request."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def rate(port: int, requests: Requests, seconds: float) -> float:
    """Answers per second over ten connections, counted until there are some; every answer must be a success."""
    with selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            ask(selector, port, requests)
        answers, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds or answers < 2 * CONNECTIONS:
            for key, _ in selector.select(max(0.1, seconds - passed)):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(1 << 16)
                key.data.extend(data)
                if not data:  # MLflow's server replaces a process of its own that a busy machine holds up
                    selector.unregister(connection)
                    connection.close()
                    ask(selector, port, requests)
                elif complete(key.data):
                    answers += 1
                    key.data.clear()
                    connection.sendall(next(requests))
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return answers / passed


def ask(selector: selectors.BaseSelector, port: int, requests: Requests) -> None:
    """Send the first request over a new connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(next(requests))
    selector.register(connection, selectors.EVENT_READ, bytearray())


def settle(port: int, requests: Requests) -> None:
    """Wait until a server answers at a steady rate; processes of it may still be starting."""
    before = 0.0
    for _ in range(12):
        now = rate(port, requests, 1.0)
        if before and abs(now / before - 1) < 0.2:
            return
        before = now


def complete(answer: bytearray) -> bool:
    """True when an answer has arrived wholly."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")), bytes(answer)
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return body.endswith(b"0\r\n\r\n")


@contextmanager
def husai(folder: Path, worker: bool) -> Iterator[tuple[int, Requests, Requests]]:
    """Our service with one recorded decision: its port, reads of that decision, and submissions that differ."""
    server = start(folder / "husai", HUSAI_DEVICE="cpu")
    process = None
    try:
        key = server.make_key("ada", ["read", "submit", "gate"])
        path = f"/v1/decisions/{decision(server, server.client(key), folder)}"
        if worker:
            environment = {**os.environ, "HUSAI_HOME": str(server.home), "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen([sys.executable, "-m", "worker"], cwd=ROOT, env=environment)
        port = int(server.url.rpartition(":")[2])
        spec = {"source": "synthetic", "world": {"rows": 64, "n_features": 8, "d_model": 8}}
        bodies = ({"kind": "train.activations", "spec": spec | {"seed": seed}} for seed in itertools.count())
        submits = (request("POST", "/v1/jobs", key, body) for body in bodies)
        yield port, itertools.repeat(request("GET", path, key)), submits
    finally:
        if process is not None:
            process.terminate()
            process.wait(60)
        stop(server)


def decision(server: Server, client: httpx.Client, folder: Path) -> str:
    """The id of a decision, made as a worker would make it."""
    place = folder / "decision"
    place.mkdir()

    def submit(**body: Any) -> dict[str, Any]:
        job: dict[str, Any] = client.post("/v1/jobs", json=body).raise_for_status().json()
        return job

    job = client.post("/v1/gates/strict/decisions", json={"candidate": make_candidate(server, submit, place)}).json()
    (place / "files").mkdir()
    claim, document, stored = judge(server, client, job, place / "files")
    server.finish(claim, document, {"decision": [stored]})
    return str(client.get("/v1/decisions?limit=1").json()["items"][0]["id"])


@contextmanager
def mlflow(folder: Path, python: Path) -> Iterator[tuple[int, Requests, Requests]]:
    """MLflow's tracking server with its defaults on SQLite: its port, reads of one run, and creations of runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder / "mlflow"
    home.mkdir()
    command = [
        python, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/mlflow.db",
        "--default-artifact-root", home / "artifacts", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, start_new_session=True)
    try:
        api = f"http://127.0.0.1:{port}/api/2.0/mlflow"
        wait_for(f"http://127.0.0.1:{port}/health")
        body = {"experiment_id": "0", "start_time": 1}
        run = httpx.post(f"{api}/runs/create", json=body).raise_for_status().json()["run"]["info"]["run_id"]
        read = request("GET", f"/api/2.0/mlflow/runs/get?run_id={run}")
        yield port, itertools.repeat(read), itertools.repeat(request("POST", "/api/2.0/mlflow/runs/create", body=body))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise TimeoutError(url)


def compare(name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> bool:
    """Print both rates and their ratio with its spread over rounds; true when the target is reached."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    ratios = sorted(mine / peer for mine, peer in pairs)
    mine, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ratios)
    print(
        f"{name}: HUSAI {mine:.0f}/s, MLflow {peer:.0f}/s, ratio {ratio:.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}), "
        f"target {TARGETS[name]:g}",
        flush=True,
    )
    return ratio >= TARGETS[name]


def main() -> int:
    """Run both services and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mlflow",
        type=lambda text: Path(text).absolute(),
        default=ROOT / ".venv-mlflow/bin/python",
        help="a Python with MLflow",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--worker", action="store_true", help="let a worker run the submitted jobs beside")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with husai(folder, arguments.worker) as ours, mlflow(folder, arguments.mlflow) as theirs:
            reached = []
            for name, index in (("reads", 1), ("submits", 2)):
                for port, *kinds in (ours, theirs):
                    settle(port, kinds[index - 1])
                reached.append(
                    compare(
                        name,
                        lambda index=index: rate(ours[0], ours[index], seconds),
                        lambda index=index: rate(theirs[0], theirs[index], seconds),
                        arguments.rounds,
                    )
                )
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
