"""Waiting through a proxy that cuts every request after a second and a half, for a job that nothing starts."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from husai.client import Husai
from husai.errors import Exit, TimedOut
from tests.api.serving import ROOT, Server, start, stop
from tests.api.test_gates import make_candidate
from tests.husai.conftest import Husai as Run
from tests.husai.test_transport import JOB, reply, service

SECONDS = 1.5
SPEC = {"source": "synthetic", "world": {"rows": 512, "n_features": 8, "d_model": 8, "active": 2}}


class Lab(NamedTuple):
    """A server without workers, the address of the proxy before it, and where that writes what it passed on."""

    server: Server
    url: str
    log: Path
    key: str

    def requests(self) -> list[tuple[str, str, int]]:
        """Method, path and status of what went through the proxy."""
        lines = [line.split() for line in self.log.read_text().splitlines()[1:]]
        return [(method, path, int(status)) for method, path, status in lines]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = start(tmp_path_factory.mktemp("lab"), HUSAI_DEVICE="cpu")
    log = tmp_path_factory.mktemp("proxy") / "log"
    command = [sys.executable, "-m", "tests.husai.proxy", "0", server.url.rpartition(":")[2], str(SECONDS)]
    with log.open("wb") as output:
        proxy = subprocess.Popen(command, cwd=ROOT, stdout=output)
    deadline = time.monotonic() + 20
    while not log.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    key = server.make_key("ada", ["read", "submit", "gate"])
    yield Lab(server, f"http://127.0.0.1:{log.read_text().split()[0]}", log, key)
    proxy.terminate()
    proxy.wait(10)
    stop(server)


@pytest.fixture
def queued(lab: Lab) -> str:
    """A job that stays queued."""
    return str(lab.server.admin.post("/v1/jobs", json={"kind": "train.activations", "spec": SPEC}).json()["id"])


@pytest.fixture
def through(lab: Lab, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, through the proxy, with hardly any patience for a service that is away."""
    monkeypatch.setenv("HUSAI_URL", lab.url)
    monkeypatch.setenv("HUSAI_KEY", (lab.server.home / "key").read_text())
    monkeypatch.setenv("HUSAI_PATIENCE", "1")
    return run


def test_the_wait_is_halved_until_it_passes_and_goes_on_until_the_time_is_over(lab: Lab, queued: str) -> None:
    key = (lab.server.home / "key").read_text().strip()
    began = time.monotonic()
    with Husai(lab.url, key, patience=1) as husai, pytest.raises(TimedOut, match="still queued"):
        husai.wait(queued, timeout=16)
    assert time.monotonic() - began >= 15
    polls = [
        (float(wait[1]), status)
        for _, path, status in lab.requests()
        if queued in path and (wait := re.search(r"wait=([\d.]+)", path))
    ]
    cut = [wait for wait, status in polls if status == 504]
    assert cut[0] > 10
    assert all(later == pytest.approx(wait / 2, abs=0.2) for wait, later in pairwise(cut) if wait > 3)
    assert any(status == 304 and wait <= SECONDS for wait, status in polls)


def test_commands_wait_until_their_own_time_is_over(through: Run, queued: str) -> None:
    for words in (["watch", queued], ["gate", "wait", queued]):
        done = through(*words, "--timeout", "6")
        assert done.code == Exit.TIMEOUT, done.err


def test_events_are_read_in_pages_where_no_stream_passes(lab: Lab, queued: str) -> None:
    with Husai(lab.url, (lab.server.home / "key").read_text().strip(), patience=1) as husai:
        events = husai.events(queued)
        assert next(events).data["state"] in {"waiting", "queued"}
        lab.server.admin.post(f"/v1/jobs/{queued}:cancel")
        assert [event.data["state"] for event in events][-1] == "cancelled"


def test_the_shell_recipe_halves_its_wait_too(lab: Lab, tmp_path: Path) -> None:
    ada = lab.server.client(lab.key)
    candidate = make_candidate(lab.server, lambda **body: ada.post("/v1/jobs", json=body).json(), tmp_path)
    ada.post("/v1/gates/strict/decisions", json={"candidate": candidate})  # the first one reads the code of all kinds
    shutil.copy(ROOT / "docs/gate-wait.sh", tmp_path)
    variables = {"HUSAI_URL": lab.url, "HUSAI_KEY": lab.key, "HUSAI_TIMEOUT": "22", "HUSAI_PATIENCE": "5"}
    command = ["sh", "gate-wait.sh", candidate]
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "goes on" in done.stderr) == (Exit.TIMEOUT, True), done.stderr
    waits = [int(wait[1]) for _, path, _ in lab.requests() if (wait := re.search(r"wait=(\d+)$", path))]
    assert waits[0] > 10
    assert waits[1:6] == [15, 8, 4, 2, 1]
    assert set(waits[6:]) == {1}, "and it goes on with what passes"


def test_a_service_that_stays_behind_a_bad_gateway_is_given_up_when_patience_ends() -> None:
    with service(reply(200, JOB | {"state": "queued"}), reply(502, body=b"<html>")) as (url, seen):
        began = time.monotonic()
        with Husai(url, "k", patience=1) as husai, pytest.raises(Exception, match="502"):
            husai.wait(JOB["id"])
        assert time.monotonic() - began < 10
        assert len(seen) > 5
