"""Long polls, event streams and the log."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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
        assert not any(one.done() for one in waiting)
        ada.post(f"{path}:cancel")
        assert {one.result(10).json()["state"] for one in waiting} == {"cancelled"}


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
    found = [block for block in blocks if "event" in block]
    states = [json.loads(block["data"])["state"] for block in found if block["event"] == "state"]
    assert states == ["waiting", "queued", "running", "succeeded"]
    assert [json.loads(b["data"])["done"] for b in found if b["event"] == "progress"] == [1, 2]
    ids = [int(block["id"]) for block in found]
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
    for header, part in {
        "bytes=0-9": whole[:10],
        "bytes=5000-6000": whole[5000:6001],
        "bytes=-7": whole[-7:],
        "bytes=12000-": whole[12000:],
        "bytes=0-99999999": whole,
    }.items():
        response = ada.get(path, headers={"Range": header})
        assert (response.status_code, response.content) == (206, part)
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
