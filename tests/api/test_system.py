"""The process: start, imports, memory, headers, metrics, and the committed OpenAPI document."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from sqlalchemy import delete

from api import openapi
from husai_core.kinds import ALIASES
from services.db import clock
from services.tables import Worker
from tests.api.serving import ROOT, Server, slug, start, stop

HEAVY = ("torch", "scipy", "numpy", "transformer_lens", "transformers")


def test_building_the_application_loads_no_numerical_library(tmp_path):
    code = (
        "import sys; from api.app import create_app; create_app().openapi();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"HUSAI_HOME": str(tmp_path)}, capture_output=True, check=True
    )
    assert run.stdout.decode().strip() == "[]"


def test_the_committed_openapi_document_is_current():
    assert json.loads(openapi.COMMITTED.read_text()) == json.loads(openapi.text())


def test_every_kind_documents_its_spec(server: Server):
    document = httpx.get(f"{server.url}/openapi.json", timeout=60).json()
    body = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    kinds = server.admin.get("/v1/kinds").json()["items"]
    assert set(body["discriminator"]["mapping"]) == {kind["name"] for kind in kinds} | set(ALIASES)
    sae = server.admin.get("/v1/kinds/train.sae").json()
    assert sae in kinds
    assert sae["inputs"]["activations"]["type"] == "activations"
    assert "recipe" in sae["spec_schema"]["properties"]


def test_security_headers_and_request_ids(server: Server):
    first, second = httpx.get(f"{server.url}/healthz"), httpx.get(f"{server.url}/nowhere")
    for response in (first, second):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert "server" not in response.headers
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_wrong_method_is_told_every_right_one(server: Server):
    for path, methods in {
        "/v1/jobs": "GET, POST", "/v1/keys": "GET, POST", f"/v1/artifacts/{'0' * 64}": "GET, HEAD", "/healthz": "GET"
    }.items():  # fmt: skip
        response = httpx.put(server.url + path)
        assert slug(response) == (405, "method-not-allowed")
        assert response.headers["allow"] == methods


def test_an_unexpected_error_tells_nothing(tmp_path):
    server = start(tmp_path / "home")
    try:
        client = server.admin
        job = client.post("/v1/jobs", json={"kind": "train.transformer"}).json()
        with server.database.write() as session:
            session.connection().exec_driver_sql("UPDATE jobs SET priority = 99")
        response = client.get(f"/v1/jobs/{job['id']}")
        assert response.status_code == 500
        problem = response.json()
        assert problem["type"] == "urn:husai:problem:internal-error"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert "KeyError" not in response.text
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    finally:
        stop(server)


def test_metrics_count_requests_and_jobs(server: Server, submit):
    submit()
    text = httpx.get(f"{server.url}/metrics").text
    assert 'husai_jobs{state="queued"}' in text
    assert 'husai_queue_depth{queue="train",state="queued"}' in text
    assert 'husai_http_requests_total{method="POST",route="/v1/jobs",status="202"}' in text


def test_queue_and_workers(server: Server, submit):
    cara = server.client(server.make_key("cara", ["read", "submit"]))
    assert cara.get("/v1/queue").json()["mine"]["train"] == {}
    submit(cara)
    queue = cara.get("/v1/queue").json()
    assert queue["mine"]["train"] == {"queued": 1}
    assert queue["queues"]["train"]["queued"] >= 1
    assert cara.get("/v1/workers").json()["items"] == []
    with server.database.write() as session:
        for name, seen_at in (("here", clock(session)), ("lost", 0.0)):
            session.add(Worker(id=name, boot_id="b", host="h", pid=1, queues=["train"], device="cpu", slots=1,
                               started_at=0.0, seen_at=seen_at, state="ready"))  # fmt: skip
    workers = {item["id"]: (item["state"], item["running"]) for item in cara.get("/v1/workers").json()["items"]}
    assert workers == {"here": ("ready", 0), "lost": ("silent", 0)}
    assert 'husai_worker_heartbeat_age_seconds{worker="here"}' in cara.get("/metrics").text
    with server.database.write() as session:
        session.execute(delete(Worker))


def test_memory_stays_small(tmp_path):
    server = start(tmp_path / "home")
    try:
        token = (server.home / "key").read_text().strip()
        job = server.admin.post("/v1/jobs", json={"kind": "train.transformer"}).json()
        paths = ["/v1/jobs", f"/v1/jobs/{job['id']}", "/v1/queue", "/healthz", "/v1/kinds/train.sae"]

        def get_many(turn: int) -> set[int]:
            address, statuses = urlsplit(server.url), set()
            connection = HTTPConnection(str(address.hostname), address.port or 80)  # far cheaper than httpx
            for n in range(2500):
                connection.request("GET", paths[n % len(paths)], headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                answer.read()
                statuses.add(answer.status)
            connection.close()
            return statuses

        with ThreadPoolExecutor(4) as pool:
            assert set.union(*pool.map(get_many, range(4))) == {200}
        status = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert resident < 150_000
    finally:
        stop(server)
