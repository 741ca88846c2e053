"""Speed and time left of a job, and what is said when nobody waits for it any longer."""

import time

import pytest

from husai.models import Job
from husai.progress import Lines, Row, Speeds, leaving, stuck
from husai.terminal import Terminal


def job(state: str = "running", **progress: float | str) -> Job:
    document = {"id": "a" * 24, "kind": "train.sae", "state": state, "version": 1}
    return Job.read({**document, "progress": {"unit": "rows", "total": 1000, **progress}})


def test_the_services_speed_and_time_left_are_shown() -> None:
    assert Speeds().of(job(done=400, rate=1234.5, seconds_left=75)) == "1,234 rows/s, 1 min 15 s left"
    assert Speeds().of(job(done=400, rate=0.5)) == "0.5 rows/s, 20 min left"


def test_both_are_taken_from_the_progress_where_the_service_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    speeds = Speeds()
    assert speeds.of(job(done=100)) == ""
    clock[0] += 10
    assert speeds.of(job(done=300)) == "20 rows/s, 35 s left"
    assert speeds.of(job("succeeded", done=1000)) == ""


def test_a_line_of_progress_has_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines = Lines(Terminal())
    lines.update([Row(0, job(done=0))])
    clock[0] += 61
    lines.update([Row(0, job(done=500), "loss 0.5", "8 rows/s, 1 min left")])
    assert capsys.readouterr().err.splitlines()[-1] == "train.sae: 50%, 8 rows/s, 1 min left, loss 0.5"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["waiting", "blocked", "waiting", "failed"], True),
        (["waiting", "blocked", "running"], False),
        (["waiting", "blocked", "queued"], False),
        (["waiting", "waiting", "succeeded"], False),
    ],
)
def test_a_study_is_stuck_once_only_blocked_jobs_are_left(states: list[str], expected: bool) -> None:
    assert stuck([job(state) for state in states]) is expected


@pytest.mark.parametrize(
    ("goes_on", "text"),
    [
        (True, "The job goes on. See it again with `husai watch abc`; stop it with `husai cancel abc`."),
        (False, "The job pauses with the service. `husai up` resumes it; `husai watch abc` shows it then."),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_job(capsys: pytest.CaptureFixture[str], goes_on: bool, text: str) -> None:
    with pytest.raises(KeyboardInterrupt), leaving(Terminal(), "abc", goes_on=goes_on):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == text + "\n"
