import io
import re
import sys

import pytest

from husai.commands.options import show
from husai.models import Job
from husai.terminal import Terminal


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_breaks_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "40")
    columns = ["explained_variance", "normalised_mse", "drift_from_init", "reason", "sha256"]
    Terminal().table(columns, [[0.1234, 0.5678, 1.0, "words " * 20, "a" * 64]])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in screen.getvalue().splitlines()]
    assert columns in lines
    assert ["0.1234", "0.5678", "1.0", *["words"] * 4, "a" * 64] in lines
    assert sum(line.count("words") for line in lines) == 20


def test_rows_of_a_bank_can_be_told_apart_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    members = [{"k": 4, "target_l0": None, "curve": []}, {"k": None, "target_l0": 8.0, "curve": []}]
    raw = {
        "id": "j", "kind": "train.sae", "state": "succeeded", "version": 1, "spec": {}, "result": {"members": members},
        "outputs": {"saes": ["a" * 64, "b" * 64], "result": ["c" * 64]},
    }  # fmt: skip
    show(Terminal(), Job.read(raw))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["members", "k", "target_l0"] in lines
    assert ["0", "4"] in lines
    assert ["1", "8"] in lines
    assert ["saes:1:", "b" * 64] in lines
    assert ["result:", "c" * 64] in lines
