"""What every command prints at 80 and 120 columns: no line is longer, and no word is split."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from husai.cli import app
from husai_core.render.text_layout import cells
from tests.husai.conftest import Husai

WIDE = 1000
DRAWN = re.compile(r"[─│╭╮╰╯├┤●┃┊·▁-█░→]+")
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z")
WIDTHS = pytest.mark.parametrize("width", [80, 120])


def words(text: str) -> set[str]:
    """The words of a text, without what is drawn between them and without instants, which pass."""
    return {word.rstrip("\\") for word in DRAWN.sub(" ", INSTANT.sub("", text)).split()} - {""}


def check(narrow: str, wide: str, width: int) -> None:
    """No line of several words is too long, and every word stands as it does where there is room for all."""
    too_long = [line for line in narrow.splitlines() if cells(line) > width]
    assert not [line for line in too_long if len(words(line)) > 1]
    assert words(narrow) <= words(wide), words(narrow) - words(wide)


def commands(group: typer.models.Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups included."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@WIDTHS
@pytest.mark.parametrize("path", list(commands(get_command(app))), ids=" ".join)
def test_help(run: Husai, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDE))
    wide = run(*path, "--help").out
    monkeypatch.setenv("COLUMNS", str(width))
    check(run(*path, "--help").out, wide, width)


@WIDTHS
@pytest.mark.parametrize(
    "line",
    [
        "jobs --all --limit 200", "jobs", "show SAE", "show SAE --all", "show ACTIVATIONS --all", "watch SAE",
        "kinds", "kinds train.sae", "kinds release.gate", "kinds study.pipeline", "artifacts", "artifacts CANDIDATE",
        "candidates", "log --limit 200", "keys list", "logs ACTIVATIONS", "submit train.sae --plan",
        "submit study.pipeline --plan", "watch STABILITY", "show STABILITY --all",
    ],
)  # fmt: skip
def test_commands(
    husai: Husai, monkeypatch: pytest.MonkeyPatch, measured: dict[str, str], line: str, width: int
) -> None:
    arguments = [measured.get(word, word) for word in line.split()]
    monkeypatch.setenv("COLUMNS", str(WIDE))
    wide = husai(*arguments)
    assert wide.code == 0, wide.err
    monkeypatch.setenv("COLUMNS", str(width))
    narrow = husai(*arguments)
    check(narrow.out, wide.out, width)
    assert narrow.out.strip() or narrow.err.strip()


@WIDTHS
def test_a_decision(
    husai: Husai, monkeypatch: pytest.MonkeyPatch, decided: dict[str, str], tmp_path: Path, width: int
) -> None:
    bundle = tmp_path / "bundle.json"
    for arguments in (
        ["gate", "show", decided["job"], "--bundle", bundle],
        ["verify", bundle],
        ["show", decided["job"]],
    ):
        monkeypatch.setenv("COLUMNS", str(WIDE))
        wide = husai(*arguments)
        monkeypatch.setenv("COLUMNS", str(width))
        check(husai(*arguments).out, wide.out, width)
    assert json.loads(bundle.read_text())["candidate"] == decided["candidate"]


@pytest.fixture(scope="session")
def measured(server, trained: dict[str, str]) -> dict[str, str]:
    """What the words in capitals stand for; the stress is measured once."""
    from husai.connect import connect

    with connect(server.home) as service:
        inputs = {
            "saes": {"job": trained["sae"], "output": "saes"},
            "activations": {"job": trained["activations"], "output": "activations"},
        }
        job = service.wait(service.submit("stress.trained_vs_random", {}, inputs=inputs).id, timeout=200)
        assert job.state == "succeeded", job.why
    names = {"SAE": "sae", "ACTIVATIONS": "activations", "CANDIDATE": "candidate"}
    return {word: trained[name] for word, name in names.items()} | {"STABILITY": job.id}
