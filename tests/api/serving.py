"""A real server process on SQLite, and what tests do to it through HTTP and as a worker would."""

import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from husai_core.artifact_index import index_tree
from services import accounts, leases
from services.artifacts import Store, Stored, store_tree
from services.db import Database
from services.decisions import signing_key
from services.leases import Claim
from services.settings import Settings

ROOT = Path(__file__).parents[2]
MAX_UPLOAD = 4 << 20


@dataclass
class Server:
    """One `python -m api` process."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    database_url: str = ""

    @cached_property
    def settings(self) -> Settings:
        return Settings(home=self.home, database_url=self.database_url, artifact_url="", device="cpu")

    @cached_property
    def database(self) -> Database:
        return Database(self.settings.database)

    @cached_property
    def store(self) -> Store:
        return Store(self.settings.artifacts)

    @cached_property
    def admin(self) -> httpx.Client:
        return self.client((self.home / "key").read_text().strip())

    def client(self, token: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def make_key(self, owner: str, scopes: list[str], role: str = "researcher", expires_at: float | None = None) -> str:
        with self.database.write() as session:
            row = accounts.create_owner(session, owner, role)
            key = accounts.create_key(
                session, accounts.mac_key(self.settings), row.id, "test", scopes, expires_at
            )  # fmt: skip
            return key[1]

    def claim(self, job_id: str) -> Claim:
        """Hold the execution of one job as a worker would; whatever else is claimed on the way is handed back."""
        others = []
        with self.database.write() as session:
            while claim := leases.claim(session, "w", "b", ("train", "stress", "control"), ("cpu", "cuda"), 600):
                if claim.job_id == job_id:
                    break
                others.append(claim)
            for other in others:
                leases.hand_back(session, other.execution_id, other.attempt)
        assert claim is not None
        return claim

    def finish(self, claim: Claim, result: dict[str, Any], outputs: dict[str, list[Stored]] | None = None) -> None:
        with self.database.write() as session:
            signer = signing_key(self.settings)
            end = leases.success(self.store, result, outputs or {})
            assert leases.finish(session, claim.execution_id, claim.attempt, signer, end)

    def stored(self, type: Any, files: dict[str, bytes], folder: Path) -> Stored:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return store_tree(self.store, index_tree(type, folder), folder)


def start(home: Path, files: int | None = None, root: Path = ROOT, **environment: str) -> Server:
    """Start a server on a fresh home and wait until it is ready; `files` bounds its file descriptors."""

    def limit() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HUSAI_")}
    variables = inherited | {"HUSAI_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment
    deadline = time.monotonic() + 60
    command = [sys.executable, "-m", "api", "--port", str(port)]
    process = subprocess.Popen(command, cwd=root, env=variables, preexec_fn=limit)
    url = f"http://127.0.0.1:{port}"
    with httpx.Client() as client:
        while time.monotonic() < deadline:
            assert process.poll() is None, "the server stopped"
            try:
                if client.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.02)
    return Server(url, home, process, environment.get("HUSAI_DATABASE_URL", ""))


def stop(server: Server) -> None:
    """Stop a server and wait for its end."""
    server.process.terminate()
    assert server.process.wait(20) in (0, -15)


def slug(response: httpx.Response) -> tuple[int, str]:
    """Status and slug of a problem, after checking its form."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    assert document["detail"]
    assert "\n" not in document["detail"]
    return response.status_code, document["type"].removeprefix("urn:husai:problem:")
