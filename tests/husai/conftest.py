"""A real server, started as `husai up` starts it, and the command line in this process."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from husai import cli
from husai.connect import connect
from husai.local_server import Server

ACTIVATIONS = {"source": "synthetic", "world": {"rows": 2048, "n_features": 24, "d_model": 16, "active": 2}}
RECIPE = {"d_sae": 24, "k": 2, "tokens": 20_000, "batch_size": 256, "dead_after_tokens": 5_000}


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Husai = Callable[..., Done]


def heed_ctrl_c() -> None:
    """For a new process: a shell that runs the tests in the background has told it to ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"HUSAI_GRACE_SECONDS": "2", "HUSAI_DEVICE": "cpu", "HUSAI_THREADS": "1", "HUSAI_SLOTS": "2"}
    running = Server(tmp_path_factory.mktemp("server") / "home", port=0)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        running.__enter__()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Husai:
    """Run `husai` with these words; without a server unless the test asks for `husai`."""
    for name in ("HUSAI_URL", "HUSAI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HUSAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> Done:
        capfd.readouterr()
        code = cli.run([str(word) for word in words])
        return Done(code, *capfd.readouterr())

    return call


@pytest.fixture
def husai(run: Husai, server: Server, monkeypatch: pytest.MonkeyPatch) -> Husai:
    """Run `husai` against the real server."""
    monkeypatch.setenv("HUSAI_HOME", str(server.home))
    return run


@pytest.fixture(scope="session")
def trained(server: Server) -> dict[str, str]:
    """Ids of finished jobs, activations of a small synthetic world and two SAEs on them, and the first SAE's digest."""
    with connect(server.home) as service:
        rows = service.submit("train.activations", ACTIVATIONS, labels=["fixture"])
        inputs = {"activations": {"job": rows.id, "output": "activations"}}
        saes = service.submit("train.sae", {"recipe": RECIPE, "seeds": [0, 1]}, inputs=inputs)
        ended = service.wait(saes.id, timeout=200)
        assert ended.state == "succeeded", ended.why
        return {"activations": rows.id, "sae": saes.id, "candidate": ended.outputs["saes"][0]}


@pytest.fixture(scope="session")
def decided(server: Server, trained: dict[str, str]) -> dict[str, str]:
    """A candidate, the job that judged it, and the decision."""
    with connect(server.home) as service:
        candidate = service.job(trained["sae"]).outputs["saes"][0]
        job = service.wait(service.decide(candidate).id, timeout=280)
        assert job.state == "succeeded", job.why
        decision = service.latest(candidate)
        assert decision is not None
        assert decision.job == job.id
        return {"candidate": candidate, "job": job.id, "decision": decision.id}
