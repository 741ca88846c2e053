"""`husai up` as a process among processes: one per home, restarts, and nothing left behind however it ends."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from husai.connect import connect, running
from husai.errors import Unavailable, Usage
from husai.local_server import Server, ServiceProcess, answers, choose_port, present
from tests.husai.conftest import ACTIVATIONS, RECIPE, Husai, heed_ctrl_c

ROOT = Path(__file__).resolve().parents[2]


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    """True while a process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(pid: int) -> list[int]:
    """A process's children, theirs, and so on."""
    pids = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return pids + [below for child in pids for below in family(child)]


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly a job runs here, so workers need no imports ahead."""
    monkeypatch.setenv("HUSAI_WARM", "none")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`husai up` on a fresh home, once it answers."""
    command = [sys.executable, "-m", "husai.cli", "up", "--home", str(tmp_path / "home"), "--port", "0", "--json"]
    env = {**os.environ, "HUSAI_GRACE_SECONDS": "2", "HUSAI_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_ctrl_c,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def started(process: subprocess.Popen[str]) -> dict[str, str]:
    """What `up --json` said."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, "husai up ended"
        text += line
    document: dict[str, str] = json.loads(text)
    return document


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_serves_and_stops_without_leftovers(
    up: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    said = started(up)
    assert json.loads((home / "server.json").read_text()) == {"url": said["url"], "pid": up.pid}
    assert present(home) == said["url"]
    with connect(home) as husai:
        assert list(husai.jobs()) == []
    below = family(up.pid)
    assert len(below) >= 2
    up.send_signal(number)
    assert up.wait(20) == 0
    assert eventually(lambda: not any(map(alive, below)), 10)
    assert not (home / "server.json").exists()
    assert present(home) is None


def test_the_children_end_when_up_is_killed_and_a_new_one_can_start(up: subprocess.Popen[str], tmp_path: Path) -> None:
    started(up)
    below = family(up.pid)
    up.kill()
    up.wait()
    assert eventually(lambda: not any(map(alive, below)), 60)  # a preload of libraries is finished first
    assert present(tmp_path / "home") is None
    with Server(tmp_path / "home", port=0) as server:
        assert answers(server.url)


def test_an_announcement_whose_process_id_lives_on_is_not_a_server(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    (tmp_path / "up.lock").touch()
    with pytest.raises(Unavailable, match="no server runs"):
        running(tmp_path)
    with (tmp_path / "up.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert running(tmp_path) == "http://127.0.0.1:1"


def test_a_service_lets_nobody_else_read_what_it_keeps(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    with Server(home, port=0):
        assert eventually(lambda: (home / "server.json").exists() and (home / "worker.lock").exists())
        assert home.stat().st_mode & 0o777 == 0o700
        readable = [path.name for path in home.rglob("*") if path.stat().st_mode & 0o077]
    assert readable == []


def test_a_service_refuses_a_folder_for_everybody(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(Usage, match="for everybody"), Server(tmp_path, port=0):
        pass


def test_a_second_up_on_one_home_is_told_where_the_first_is(husai: Husai, server: Server) -> None:
    done = husai("up", "--home", server.home, "--port", "0")
    assert done.code == 2
    assert done.err == f"husai: A HUSAI server for {server.home} is already running at {server.url}\n"
    assert present(server.home) == server.url


def test_a_dead_api_comes_back_and_a_waiting_client_does_not_notice(tmp_path: Path) -> None:
    with Server(tmp_path / "home", port=0) as server, connect(server.home) as husai:
        api = server.processes[0]
        api.signal(signal.SIGKILL)
        assert eventually(lambda: not api.alive)
        assert server.tend() == [f"api ended and is being started again; its log is {api.log}"]
        assert eventually(lambda: server.tend() == [] and api.alive)
        assert list(husai.jobs()) == []


def test_pauses_between_restarts_grow(tmp_path: Path) -> None:
    child = ServiceProcess("no_such_module", [], tmp_path)
    child.start()
    moments = []
    while len(moments) < 3:
        if child.tend():
            moments.append(time.monotonic())
        time.sleep(0.005)
    assert moments[2] - moments[1] > moments[1] - moments[0] > 0.5
    assert "no_such_module" in child.last_words()


def test_an_api_that_cannot_start_is_one_line_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_DEVICE", "abacus")
    with (
        pytest.raises(Unavailable, match=r"the API did not start: .*HUSAI_DEVICE: .*auto\|cpu\|cuda.*api\.log"),
        Server(tmp_path / "home", port=0),
    ):
        pass
    assert not (tmp_path / "home" / "server.json").exists()
    monkeypatch.delenv("HUSAI_DEVICE")
    with Server(tmp_path / "home", port=0) as server:
        assert answers(server.url)


def test_a_taken_port_is_refused_if_named_and_avoided_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("husai.local_server.PORT", port)
        assert choose_port("127.0.0.1", None) not in {0, port}
        with pytest.raises(Usage, match=f"cannot listen on 127.0.0.1:{port}"):
            choose_port("127.0.0.1", port)
    assert choose_port("127.0.0.1", None) == port
    with pytest.raises(Usage, match="cannot listen"):
        choose_port("203.0.113.1", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_stop_keeps_the_work_of_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None
) -> None:
    monkeypatch.setenv("HUSAI_WARM", "light")  # attempts come from a forkserver, which must outlive the draining
    monkeypatch.setenv("HUSAI_DEVICE", "cpu")
    home, others = tmp_path / "home", set(family(os.getpid()))
    with Server(home, port=0), connect(home) as husai:
        rows = husai.submit("train.activations", ACTIVATIONS)
        recipe = RECIPE | {"tokens": 10**9}
        inputs = {"activations": {"job": rows.id, "output": "activations"}}
        job = husai.submit("train.sae", {"recipe": recipe, "seeds": [0]}, inputs=inputs)
        assert eventually(lambda: any(event.type == "progress" for event in husai.recent(job.id)), 120)
        if number:  # as a service manager does, to all of its processes at once
            for pid in set(family(os.getpid())) - others:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
    with Server(home, port=0), connect(home) as husai:
        events = [(event.type, event.data.get("reason")) for event in husai.recent(job.id, limit=1000)]
        assert ("state", "drained") in events
        assert any(type == "checkpoint" for type, _ in events)
        assert "infra.lost" not in {reason for _, reason in events}
        husai.cancel(job.id)
