"""Long polls, event streams and the log."""

import asyncio
import itertools
import json
import selectors
import socket
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from api.streams import Feeds
from api.waiting import Hub
from services import leases
from tests.api.serving import Server, slug, start, stop


def test_if_none_match_answers_304(ada, submit):
    job = submit()
    path = f"/v1/jobs/{job['id']}"
    etag = ada.get(path).headers["etag"]
    same = ada.get(path, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    ada.post(f"{path}:cancel")
    assert ada.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_a_long_poll_ends_at_the_change(ada, submit):
    path = f"/v1/jobs/{submit()['id']}"
    other = f"/v1/jobs/{submit()['id']}"
    etag = ada.get(path).headers["etag"]
    assert ada.get(f"{path}?wait=0.4", headers={"If-None-Match": etag}).status_code == 304
    with ThreadPoolExecutor(2) as pool:
        unchanged = pool.submit(ada.get, f"{other}?wait=30", headers={"If-None-Match": ada.get(other).headers["etag"]})
        changed = pool.submit(ada.get, f"{path}?wait=30", headers={"If-None-Match": etag})
        time.sleep(0.5)
        assert not changed.done()
        ada.post(f"{path}:cancel")
        assert changed.result().json()["state"] == "cancelled"
        assert ada.get(f"{path}?wait=30").json()["state"] == "cancelled"
        assert not unchanged.done()
        ada.post(f"{other}:cancel")
    assert slug(ada.get(f"{path}?wait=31")) == (422, "invalid-request")


def test_many_waiters_leave_the_server_responsive(ada, submit):
    path = f"/v1/jobs/{submit()['id']}"
    etag = ada.get(path).headers["etag"]
    with ThreadPoolExecutor(60) as pool:
        waiting = [pool.submit(ada.get, f"{path}?wait=20", headers={"If-None-Match": etag}) for _ in range(60)]
        time.sleep(0.5)
        assert ada.get(path).status_code == 200
        assert not any(request.done() for request in waiting)
        ada.post(f"{path}:cancel")
        assert {request.result(10).json()["state"] for request in waiting} == {"cancelled"}


def test_events_stream_until_the_final_state_and_resume(ada, submit, server: Server):
    job = submit()
    claim = server.claim(job["id"])

    def work():
        news = [("log", {"text": "one\n"}), ("metrics", {"step": 1, "values": {"loss": 0.5}})]
        for done in (1, 2):
            time.sleep(0.3)
            with server.database.write() as session:
                progress = {"done": done, "total": 2, "unit": "steps"}
                leases.report(session, claim.execution_id, claim.attempt, progress, news)
        server.finish(claim, {"steps": 2})

    worker = threading.Thread(target=work)
    worker.start()
    with ada.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    worker.join()
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    events = [block for block in blocks if "event" in block]
    states = [json.loads(block["data"])["state"] for block in events if block["event"] == "state"]
    assert states == ["waiting", "queued", "running", "succeeded"]
    assert [json.loads(b["data"])["done"] for b in events if b["event"] == "progress"] == [1, 2]
    ids = [int(block["id"]) for block in events]
    assert ids == sorted(set(ids))
    rest = ada.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ids[-3])}).text
    assert [line for line in rest.splitlines() if line.startswith("id: ")] == [f"id: {id}" for id in ids[-2:]]

    as_json = {"Accept": "application/json"}
    for lost in ("", "abc", "-1", "9" * 30):
        headers = as_json | {"Last-Event-ID": lost}
        page = ada.get(f"/v1/jobs/{job['id']}/events", headers=headers).json()
        assert [item["id"] for item in page["items"]] == ids
    page = ada.get(f"/v1/jobs/{job['id']}/events?limit=2", headers=as_json).json()
    assert [item["id"] for item in page["items"]] == ids[:2]
    logs = ada.get(f"/v1/jobs/{job['id']}/events?after={page['next']}&type=log", headers=as_json).json()["items"]
    assert [item["data"]["text"] for item in logs] == ["one\n", "one\n"]


def test_logs_honour_ranges(ada, submit, server: Server):
    job = submit()
    path = f"/v1/jobs/{job['id']}/logs"
    assert ada.get(path).text == ""
    assert slug(ada.get(path, headers={"Range": "bytes=0-"})) == (416, "range-not-satisfiable")
    claim = server.claim(job["id"])
    with server.database.write() as session:
        news = [("log", {"text": f"line {n} ü\n"}) for n in range(1200)]
        leases.report(session, claim.execution_id, claim.attempt, None, news)
    whole = "".join(f"line {n} ü\n" for n in range(1200)).encode()
    full = ada.get(path)
    assert (full.content, full.headers["content-type"]) == (whole, "text/plain; charset=utf-8")
    for header, section in {
        "bytes=0-9": whole[:10],
        "bytes=5000-6000": whole[5000:6001],
        "bytes=-7": whole[-7:],
        "bytes=12000-": whole[12000:],
        "bytes=0-99999999": whole,
    }.items():
        response = ada.get(path, headers={"Range": header})
        assert (response.status_code, response.content) == (206, section)
        assert response.headers["content-range"].endswith(f"/{len(whole)}")
    assert ada.get(path, headers={"Range": "bytes=0-1,4-5"}).status_code == 200
    beyond = ada.get(path, headers={"Range": f"bytes={len(whole)}-"})
    assert beyond.headers["content-range"] == f"bytes */{len(whole)}"


def test_stopping_sends_waiting_clients_home(tmp_path):
    server = start(tmp_path / "home")
    client = server.admin
    job = client.post("/v1/jobs", json={"kind": "train.transformer"}).json()
    with ThreadPoolExecutor(2) as pool:
        poll = pool.submit(client.get, f"/v1/jobs/{job['id']}?wait=30", timeout=20)
        stream = pool.submit(client.get, f"/v1/jobs/{job['id']}/events", timeout=20)
        time.sleep(0.5)
        stop(server)
        assert poll.result().json()["id"] == job["id"]
        assert "queued" in stream.result().text


class Streams:
    """Many event streams of one job by one key, read in the background."""

    def __init__(self, server: Server, token: str, job_id: str, count: int) -> None:
        address = urlsplit(server.url)
        head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n\r\n"
        self.sockets = selectors.DefaultSelector()
        self.texts: dict[socket.socket, bytes] = {}
        for _ in range(count):
            client = socket.create_connection((str(address.hostname), address.port or 80), timeout=30)
            client.sendall(head.encode())
            client.setblocking(False)
            self.sockets.register(client, selectors.EVENT_READ)
            self.texts[client] = b""
        self.reading = True
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while self.reading:
            for key, _ in self.sockets.select(0.1):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                if piece := client.recv(1 << 16):
                    self.texts[client] += piece
                else:
                    self.sockets.unregister(client)

    def statuses(self) -> Counter[int]:
        return Counter(int(text.split()[1]) for text in self.texts.values() if text)

    def close(self) -> None:
        self.reading = False
        self.thread.join()
        for client in self.texts:
            client.close()


def test_many_streams_of_one_job_slow_nobody_down(tmp_path):
    server = start(tmp_path / "home", HUSAI_DEVICE="cpu")
    tokens = [server.make_key(name, ["read", "submit", "admin"], "admin") for name in ("ada", "eve")]
    other = server.client(server.make_key("bob", ["read", "submit"]))
    job = server.client(tokens[0]).post("/v1/jobs", json={"kind": "train.transformer"}).json()
    claim = server.claim(job["id"])
    crowds = [Streams(server, token, job["id"], 250) for token in tokens]
    stop_reporting = threading.Event()

    def report() -> None:
        for done in itertools.count(1):
            if stop_reporting.wait(0.1):
                return
            with server.database.write(shared=True) as session:
                progress = {"done": done, "total": 10**6, "unit": "steps"}
                news = [("metrics", {"step": done, "values": {"loss": 1.0}})]
                leases.report(session, claim.execution_id, claim.attempt, progress, news)

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        deadline = time.monotonic() + 30
        while sum(streams.statuses().total() for streams in crowds) < 500 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [streams.statuses() for streams in crowds] == [{200: 250}] * 2
        took = []
        for _ in range(40):
            begin = time.monotonic()
            assert other.get("/v1/queue").status_code == 200
            took.append(time.monotonic() - begin)
            time.sleep(0.05)
        assert statistics.median(took) < 0.25, took
        assert all(b'"done": 3,' in text for streams in crowds for text in streams.texts.values())
    finally:
        stop_reporting.set()
        reporter.join()
        for streams in crowds:
            streams.close()
        stop(server)


def test_one_owner_leaves_room_for_the_waiting_clients_of_others(tmp_path):
    server = start(tmp_path / "home", HUSAI_DEVICE="cpu")
    token = server.make_key("ada", ["read", "submit"])
    ada = server.client(token)
    job = ada.post("/v1/jobs", json={"kind": "train.transformer"}).json()
    streams = Streams(server, token, job["id"], 300)
    try:
        deadline = time.monotonic() + 120
        while streams.statuses().total() < 300 and time.monotonic() < deadline:
            time.sleep(0.1)
        admitted = streams.statuses()[200]
        assert streams.statuses() == {200: admitted, 429: 300 - admitted}
        assert 250 <= admitted < 270, "streams that begin together may all be let in"
        refused = ada.get(f"/v1/jobs/{job['id']}/events")
        assert slug(refused) == (429, "too-many-waiting")
        assert refused.headers["retry-after"]
        begin = time.monotonic()
        assert ada.get(f"/v1/jobs/{job['id']}?wait=20").status_code == 200
        assert time.monotonic() - begin < 10
        eve = server.client(server.make_key("eve", ["read", "submit"]))
        hers = eve.post("/v1/jobs", json={"kind": "train.transformer", "spec": {"seed": 9}}).json()
        with ThreadPoolExecutor(1) as pool:
            poll = pool.submit(eve.get, f"/v1/jobs/{hers['id']}?wait=20")
            time.sleep(0.5)
            assert not poll.done()
            eve.post(f"/v1/jobs/{hers['id']}:cancel")
            assert poll.result(10).json()["state"] == "cancelled"
    finally:
        streams.close()
        stop(server)


def test_a_stream_goes_on_after_events_that_are_no_longer_kept(ada, submit, server: Server):
    job = submit()
    claim = server.claim(job["id"])
    with server.database.write() as session:
        lines = [("log", {"text": f"{n} " + "x" * 2000}) for n in range(1200)]
        leases.report(session, claim.execution_id, claim.attempt, None, lines)
    with ThreadPoolExecutor(2) as pool:
        texts = [pool.submit(ada.get, f"/v1/jobs/{job['id']}/events?type=log") for _ in range(2)]
        time.sleep(1.0)
        server.finish(claim, {"steps": 2})
        for text in texts:
            ids = [int(line[4:]) for line in text.result(30).text.splitlines() if line.startswith("id: ")]
            assert len(ids) == len(set(ids)) == 1200
            assert ids == sorted(ids)


def test_a_stream_ends_with_the_rights_of_its_caller(submit, server: Server):
    job, answers = submit(), iter([True, False])

    async def allowed() -> bool:
        return next(answers)

    async def follow() -> list[str]:
        stream = Feeds(Hub(server.database), 0.3).stream(job["id"], 0, lambda _: True, "ada", allowed)
        return [text async for text in stream]

    sent = asyncio.run(asyncio.wait_for(follow(), 30))
    assert any("event: state" in text for text in sent)
    assert next(answers, None) is None
