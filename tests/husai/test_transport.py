"""Patience, against a small real HTTP server: what must be tried again, what must not, and how often."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from husai.client import Husai
from husai.errors import Exit, Mismatch, Refused, TimedOut, Unavailable, Usage
from husai.files import inside
from husai.transport import Transport, retry_after

Answer = Callable[[BaseHTTPRequestHandler], None]
JOB = {"id": "a" * 24, "kind": "train.sae", "version": 1, "spec": {}}


@contextmanager
def service(*answers: Answer) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A server that gives these answers in turn, the last one for ever, and keeps the requests."""
    seen: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.body = self.rfile.read(length)
            seen.append(self)
            answers[min(len(seen), len(answers)) - 1](self)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def reply(status: int, document: Any = None, body: bytes | None = None, **headers: str) -> Answer:
    data = json.dumps(document).encode() if body is None else body

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": str(len(data))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def hang_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True
    request.connection.close()


def job(state: str, version: int = 1) -> Answer:
    return reply(200, JOB | {"state": state, "version": version})


def test_a_busy_service_is_asked_again_when_it_says() -> None:
    busy = reply(429, {"type": "urn:husai:problem:too-many-jobs", "detail": "later"}, Retry_After="1")
    with service(busy, job("queued")) as (url, seen), Husai(url, "k") as husai:
        began = time.monotonic()
        assert husai.submit("train.sae").state == "queued"
        assert time.monotonic() - began >= 1
        assert len(seen) == 2


def test_a_wait_longer_than_patience_is_refused_at_once() -> None:
    busy = reply(429, {"type": "urn:husai:problem:too-many-jobs", "detail": "later"}, Retry_After="60")
    with service(busy) as (url, seen), Husai(url, "k", patience=2) as husai:
        with pytest.raises(Refused, match="later") as error:
            husai.submit("train.sae")
        assert (error.value.slug, error.value.exit_code, len(seen)) == ("too-many-jobs", Exit.USAGE, 1)


def test_a_submission_that_broke_off_is_sent_again_under_its_key() -> None:
    with service(hang_up, job("queued")) as (url, seen), Husai(url, "k") as husai:
        assert husai.submit("train.sae").state == "queued"
        keys = {request.headers["Idempotency-Key"] for request in seen}
        assert len(seen) == 2
        assert len(keys) == 1
        assert None not in keys


def test_a_rerun_that_broke_off_is_not_sent_twice() -> None:
    with service(hang_up) as (url, seen), Husai(url, "k", patience=2) as husai:
        with pytest.raises(Unavailable):
            husai.rerun("a" * 24)
        assert len(seen) == 1


def test_a_restart_is_sat_through_and_a_refusal_is_not() -> None:
    down = reply(503, {"detail": "starting"})
    with service(down, hang_up, job("running"), job("succeeded", 2)) as (url, seen), Husai(url, "k") as husai:
        assert husai.wait("a" * 24, timeout=10).state == "succeeded"
        assert seen[-1].headers["If-None-Match"] == f'"{"a" * 24}-1"'
        assert "wait=" in seen[-1].path
    with service(reply(404, {"type": "urn:husai:problem:unknown-job", "detail": "no"})) as (url, seen):
        with pytest.raises(Refused), Husai(url, "k") as husai:
            husai.job("a" * 24)
        assert len(seen) == 1


def test_waiting_ends_at_the_timeout_while_the_service_is_away() -> None:
    with service(reply(503)) as (url, _):
        husai, began = Husai(url, "k", patience=60), time.monotonic()
        with pytest.raises(TimedOut):
            husai.wait("a" * 24, timeout=0.5)
        assert time.monotonic() - began < 20


def test_waiting_ends_at_the_timeout() -> None:
    with service(job("running")) as (url, _), Husai(url, "k") as husai, pytest.raises(TimedOut, match="still running"):
        husai.wait("a" * 24, timeout=0.3)


def test_nobody_there_is_unavailable() -> None:
    with service() as (url, _):
        pass
    with pytest.raises(Unavailable, match="no answer"), Husai(url, "k", patience=0.3) as husai:
        husai.job("a")


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>"), (200, b"[]"), (404, b"<html>\noops"), (404, b'{"detail": "no"}'), (500, b"")]
)
def test_an_answer_from_something_else_is_one_line_about_the_service(status: int, body: bytes) -> None:
    with service(reply(status, body=body)) as (url, _), Husai(url, "k") as husai:
        with pytest.raises(Refused) as error:
            husai.kinds()
        assert error.value.exit_code == Exit.SERVICE
        assert "\n" not in str(error.value)


def test_events_resume_after_the_last_one_seen() -> None:
    first = b'id: 5\nevent: log\ndata: {"text": "one"}\n\n: ping\n\nid: 6\nevent: log\ndata: {"te'
    second = b'id: 6\nevent: log\ndata: {"text":\ndata: "two"}\n\nid: 7\nevent: state\ndata: {"state": "failed"}\n\n'
    broken = reply(200, body=first, Content_Length=str(len(first) + 10))
    with service(broken, reply(200, body=second)) as (url, seen), Husai(url, "k") as husai:
        events = list(husai.events("a" * 24))
    assert [(event.id, event.type) for event in events] == [(5, "log"), (6, "log"), (7, "state")]
    assert events[1].data == {"text": "two"}
    assert [request.headers["Last-Event-ID"] for request in seen] == ["0", "5"]


def test_a_download_resumes_and_is_checked(tmp_path: Path) -> None:
    data = bytes(range(256)) * 64
    sha = hashlib.sha256(data).hexdigest()
    half = reply(200, body=data[:5000], Content_Length=str(len(data)))
    following = reply(206, body=data[5000:], Content_Range=f"bytes 5000-{len(data) - 1}/{len(data)}")
    with service(half, following) as (url, seen), Husai(url, "k") as husai:
        assert husai.download(sha, tmp_path / "x" / "file").read_bytes() == data
        assert seen[1].headers["Range"] == "bytes=5000-"
    with service(reply(200, body=b"other")) as (url, _), Husai(url, "k") as husai, pytest.raises(Mismatch):
        husai.download(sha, tmp_path / "bad")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file"]


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\\b"])
def test_an_artifact_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(Mismatch):
        inside(tmp_path, name)


def test_ids_cannot_lead_to_another_path() -> None:
    with service(job("queued")) as (url, seen), Husai(url, "k") as husai:
        husai.job("../keys?x=1")
        assert seen[0].path == "/v1/jobs/..%2Fkeys%3Fx%3D1"


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"retry-after": "3"}) == 3
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) == 0
    assert retry_after({}) == 0


@pytest.mark.parametrize("key", ["schlüssel✓", "a\nb", "a\udcffb"])
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(Usage, match="the API key holds") as error:
        Transport("http://127.0.0.1:1", key, 1)
    assert key not in str(error.value)


@pytest.mark.parametrize("url", ["http://[bad", "http://x:99999", "http://x:0", "http://", "ftp://x", "http://\udcff"])
def test_what_is_not_an_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Usage, match="is not the address"):
        Transport(url, "k", 60)


@pytest.mark.parametrize("words", [{"key": "ké"}, {"key": "a\nb"}, {"labels": ["\udcff"]}, {"spec": {"\udcff": 1}}])
def test_what_cannot_be_sent_is_refused_at_once(words: dict[str, Any]) -> None:
    with Husai("http://127.0.0.1:1", "k") as husai, pytest.raises(Usage, match="cannot be sent"):
        husai.submit("train.sae", **words)
    with Husai("http://127.0.0.1:1", "k") as husai, pytest.raises(Usage, match="is not a name or id"):
        husai.job("a\udcff")
