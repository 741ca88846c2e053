"""From `husai up` on a fresh home until /readyz answers 200, in turns with an empty FastAPI application on uvicorn."""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from husai.local_server import choose_port  # noqa: E402

PEER = "import fastapi, uvicorn; app = fastapi.FastAPI(); app.get('/readyz')(lambda: 'ok'); uvicorn.run(app, port={})"


def ready(command: list[str], port: int, home: Path) -> float:
    """Seconds until a server on `port` is ready; it is stopped again."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUSAI_")}
    began = time.perf_counter()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=inherited | {"HUSAI_HOME": str(home)}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client() as client:
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    if client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                        return time.perf_counter() - began
                time.sleep(0.01)
        raise SystemExit((home / "log").read_text())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def main() -> None:
    """Print both times and their ratio, each as a median with its range."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = []
    for _ in range(parser.parse_args().rounds):
        with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as peer_home:
            port, second = choose_port("127.0.0.1", 0), choose_port("127.0.0.1", 0)
            ours = ready([sys.executable, "-m", "husai.cli", "up", "--port", str(port)], port, Path(home))
            peer = ready([sys.executable, "-c", PEER.format(second)], second, Path(peer_home))
        rounds.append((ours, peer, ours / peer))
    for name, figures in zip(("husai up", "bare FastAPI", "ratio"), zip(*rounds, strict=True), strict=True):
        print(f"{name:12} {statistics.median(figures):5.2f}  {min(figures):5.2f} to {max(figures):5.2f}")


if __name__ == "__main__":
    main()
