"""Refused requests leave one line each, which holds nothing secret, and there are only so many."""

import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.refusals import MOST_A_MINUTE, Refusals
from services.problems import Problem, not_found
from services.settings import Settings


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "husai.api"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "husai.api")
    return caplog


def test_a_refusal_is_one_line_without_query_headers_and_body(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    settings = Settings(home=tmp_path / "home", device="cpu")
    with TestClient(create_app(settings)) as client:
        key = (tmp_path / "home" / "key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        body = {"kind": "train.activations", "spec": {"hidden": "in the body"}}
        log.clear()
        assert client.get("/v1/queue", headers=headers).status_code == 200
        assert lines(log) == []
        answer = client.post("/v1/jobs?dry_run=true", json=body, headers=headers)
        assert lines(log) == [f"request {answer.headers['x-request-id']}: POST /v1/jobs: 422 invalid-spec"]
        log.clear()
        answer = client.get("/v1/jobs/a%0Ab?wait=1", headers={"Authorization": "Bearer husai_hidden"})
        assert lines(log) == [f"request {answer.headers['x-request-id']}: GET /v1/jobs/a%0Ab: 401 bad-key"]
        log.clear()
        answer = client.get("/jobs/00000000", headers={"Host": "elsewhere.example"})
        assert lines(log) == [f"request {answer.headers['x-request-id']}: GET /jobs/00000000: 421 unknown-host"]


def test_refusals_cannot_fill_the_log_but_failures_are_all_there(log: pytest.LogCaptureFixture) -> None:
    refusals = Refusals()
    scope = {"request_id": "1", "method": "GET", "raw_path": b"/v1/\xff" + b"a" * 1000}
    for _ in range(4 * MOST_A_MINUTE):
        refusals.write(scope, not_found("job", "a"))
    assert MOST_A_MINUTE <= len(lines(log)) <= 2 * MOST_A_MINUTE + 1
    assert max(map(len, lines(log))) < 300
    log.clear()
    for _ in range(10):
        refusals.write(scope, Problem(507, "storage-full", "Storage full", "The disk is full."))
    assert len(lines(log)) == 10
