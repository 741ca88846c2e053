"""What the terminal writes at a given width, in colour and without, and how a job stands in it."""

import io
import re
import sys

import pytest

from husai.job_text import show
from husai.models import Job
from husai.terminal import Terminal, columns, number, short_ids


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_splits_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "40")
    names = ["explained_variance", "normalised_mse", "drift_from_init", "reason", "state"]
    Terminal().table(names, [[0.1234, 0.5678, 1.0, "words " * 20, "succeeded"]])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in screen.getvalue().splitlines()]
    assert max(map(len, lines)) <= 40
    words = " ".join(lines).split()
    assert {*names, "0.1234", "0.5678", "1.0", "succeeded"} <= set(words)
    assert words.count("words") == 20
    assert "\x1b[32msucceeded" in screen.getvalue()


def test_colours_are_only_for_eyes_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    Terminal().table(["state"], [["failed"]])
    assert "\x1b" not in screen.getvalue()


def test_the_width_is_that_of_columns_or_120(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "33")
    assert columns(io.StringIO()) == 33
    monkeypatch.setenv("COLUMNS", "wide")
    assert columns(io.StringIO()) == 120


def test_figures_have_a_true_minus_sign() -> None:
    assert [number(-3), number(-0.25), number(1e-5), number(None)] == ["−3", "−0.25", "1e−05", "unknown"]


def test_short_ids_have_as_many_digits_as_tell_them_apart() -> None:
    assert short_ids(["a" * 24, "b" * 24]) == {"a" * 24: "a" * 8, "b" * 24: "b" * 8}
    alike = ["a" * 12 + "0" * 12, "a" * 12 + "1" * 12]
    assert list(short_ids(alike).values()) == ["a" * 12 + "0", "a" * 12 + "1"]


def test_a_job_says_how_it_stands_and_what_an_input_calls_each_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    asset = {"name": "gpt2", "how": "hf download gpt2"}
    raw = {
        "id": "j", "kind": "train.sae", "state": "blocked", "version": 1, "detail": "gpt2 is missing",
        "assets": [asset], "outputs": {"saes": ["a" * 64, "b" * 64], "result": ["c" * 64]},
    }  # fmt: skip
    show(Terminal(), Job.read(raw))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["j", "train.sae", "blocked:"]
    assert ["needs", "gpt2:", "hf", "download", "gpt2"] in lines
    assert ["saes:1", "b" * 12] in lines
    assert ["result", "c" * 12] in lines


def test_a_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nsucceeded\tpass\x1b[2J\u202e"
    Terminal().line(name)
    Terminal().table(["name"], [[name]])
    Terminal().pairs([("name", name)])
    Terminal().paragraph(name)
    Terminal().note(name)
    written = capsys.readouterr()
    lines = [*written.out.splitlines(), *written.err.splitlines()]
    assert [line.removeprefix("name  ") for line in lines if "succeeded" in line] == ["a succeeded pass�[2J�"] * 5


def test_notes_on_a_terminal_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "30")
    Terminal().note("  sae: failed: " + "the learning rate is too large " * 3)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 30
    assert " ".join(lines).split().count("learning") == 3
