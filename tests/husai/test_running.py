"""What the commands say about a job that runs, and about names that were misspelt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from husai.connect import connect
from husai.errors import Exit
from husai.local_server import Server
from tests.husai.conftest import Husai

ENDLESS = {"steps": 1_000_000, "stop_accuracy": 1.0, "evaluate_every": 20}


@pytest.fixture
def running(server: Server) -> Iterator[str]:
    """A job that has reported figures and goes on for longer than the test."""
    with connect(server.home) as service:
        job = service.submit("train.transformer", ENDLESS)
        try:
            next(event for event in service.events(job.id) if event.type == "metrics")
            yield job.id
        finally:
            service.wait(service.cancel(job.id).id, timeout=60)


def test_a_running_job_says_how_far_it_is(husai: Husai, running: str, tmp_path: Path) -> None:
    lines = [line.split() for line in husai("show", running).out.splitlines()]
    assert lines[0] == [running, "train.transformer", "running"]
    shown = {line[0]: line[1:] for line in lines[1:]}
    assert shown["attempt"] == ["1"]
    assert shown["done"][1:4] == ["of", "1,000,000", "steps,"]
    assert shown["validation"][0] == "accuracy"
    refused = husai("export", running, tmp_path / "out")
    assert refused.code == Exit.USAGE
    assert f"job {running} is running; it can be exported when it has succeeded" in refused.err


def test_a_cancelled_job_has_nothing_to_export(husai: Husai, server: Server, tmp_path: Path) -> None:
    with connect(server.home) as service:
        job = service.cancel(service.submit("train.transformer", ENDLESS).id)
        service.wait(job.id, timeout=60)
    assert f"job {job.id} cancelled, so it has nothing to export" in husai("export", job.id, tmp_path / "out").err


def test_misspelt_names_get_a_suggestion(husai: Husai) -> None:
    assert "did you mean train.sae?" in husai("kinds", "train.sea").err
    assert "recipe.kk: unknown field; did you mean k?" in husai("submit", "train.sae", "--set", "recipe.kk=3").err


def test_a_list_in_a_kinds_help_stays_a_list(husai: Husai) -> None:
    lines = husai("kinds", "data.import").out.splitlines()
    assert [line.split("`")[1] for line in lines if line.startswith("- `")][:2] == ["saelens", "dictionary_learning"]
