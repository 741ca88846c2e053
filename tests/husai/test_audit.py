"""The chain of decisions as a client checks it, against a small real HTTP server."""

import json
from pathlib import Path
from typing import Any

import pytest

from husai.errors import Exit
from tests.husai.conftest import Husai
from tests.husai.test_transport import Answer, reply, service

WHOLE = {"ok": True, "length": 2, "head": "b" * 64, "problems": []}


@pytest.fixture
def audit(run: Husai, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `husai audit chain` against a service that gives these answers in turn."""

    def call(*answers: Answer, options: list[Any]) -> Any:
        with service(*answers) as (url, _):
            monkeypatch.setenv("HUSAI_URL", url)
            monkeypatch.setenv("HUSAI_KEY", "husai_x")
            return run("audit", "chain", *options)

    return call


def test_a_whole_chain_is_said_to_be_and_its_head_is_kept(audit: Any, tmp_path: Path) -> None:
    done = audit(reply(200, WHOLE), options=["--export", tmp_path / "head.json"])
    assert (done.code, "the chain of 2 decisions is whole" in done.out) == (Exit.OK, True)
    assert json.loads((tmp_path / "head.json").read_text()) == {"length": 2, "head": "b" * 64}
    again = audit(reply(200, WHOLE), options=["--anchor", tmp_path / "head.json"])
    assert (again.code, "still holds the 2" in again.out) == (Exit.OK, True)


def test_what_the_service_finds_wrong_is_a_mismatch(audit: Any) -> None:
    broken = WHOLE | {"ok": False, "problems": ["decision 1 is missing"]}
    done = audit(reply(200, broken), options=[])
    assert (done.code, done.out) == (Exit.MISMATCH, "does not hold: decision 1 is missing\n")


@pytest.mark.parametrize(
    ("anchor", "problem"),
    [
        ({"length": 3, "head": "c" * 64}, "the chain had 3 decisions when the anchor was made, and has 2 now"),
        ({"length": 2, "head": "c" * 64}, "decision 2 is not the one that the anchor names"),
        ({"length": 1, "head": "c" * 64}, "decision 1, the last one of the anchor, is gone"),
    ],
)
def test_a_chain_that_was_rewritten_does_not_hold_an_anchor(
    audit: Any, tmp_path: Path, anchor: dict[str, Any], problem: str
) -> None:
    (tmp_path / "head.json").write_text(json.dumps(anchor))
    none = reply(200, {"items": [], "next": None})
    done = audit(reply(200, WHOLE), none, options=["--anchor", tmp_path / "head.json"])
    assert (done.code, problem in " ".join(done.out.split())) == (Exit.MISMATCH, True)


def test_what_is_not_an_anchor_is_refused(audit: Any, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text("[]")
    done = audit(reply(200, WHOLE), options=["--anchor", tmp_path / "head.json"])
    assert (done.code, "is not a head that" in done.err) == (Exit.USAGE, True)
