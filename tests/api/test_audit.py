"""The chain of decisions, the keys that signed them, public badges, and what `/readyz` says."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, event
from starlette.testclient import TestClient

from api.app import create_app
from husai_core.release import bundle as bundles
from services.tables import Decision, Worker
from tests.api.serving import Server, slug, start, stop
from tests.api.test_gates import judge, make_candidate

NOBODY = "f" * 64


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose decisions no other test counts."""
    running = start(tmp_path_factory.mktemp("alone"), HUSAI_DEVICE="cpu")
    yield running
    stop(running)


def decide(server: Server, client: httpx.Client, folder: Path) -> str:
    """A candidate about which the strict policy has decided."""
    folder.mkdir()

    def submit(**body: Any) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/v1/jobs", json=body).json()
        return answer

    candidate = make_candidate(server, submit, folder)
    job = client.post("/v1/gates/strict/decisions", json={"candidate": candidate}).json()
    claim, decision, stored = judge(server, client, job, folder)
    server.finish(claim, decision, {"decision": [stored]})
    return candidate


def test_the_chain_and_the_keys_can_be_checked(alone: Server, tmp_path: Path):
    ada = alone.client(alone.make_key("ada", ["read", "submit", "gate"]))
    empty = ada.get("/v1/chain").json()
    assert empty == {"ok": True, "length": 0, "head": bundles.GENESIS, "problems": []}
    for name in ("first", "second"):
        decide(alone, ada, tmp_path / name)
    whole = ada.get("/v1/chain").json()
    assert (whole["ok"], whole["length"], whole["problems"]) == (True, 2, [])
    newest = ada.get("/v1/decisions?limit=1").json()["items"][0]
    bundle = bundles.Bundle.model_validate(ada.get(f"/v1/decisions/{newest['id']}/bundle").json())
    assert whole["head"] == bundles.chain_hash(bundle)
    (key,) = httpx.get(f"{alone.url}/v1/signing-keys").json()["items"]
    assert (key["current"], key["public_key"]) == (True, bundle.public_key)
    assert key["pem"].startswith("-----BEGIN PUBLIC KEY-----")
    assert httpx.get(f"{alone.url}/readyz").json()["chain"] is True
    assert slug(httpx.get(f"{alone.url}/v1/chain")) == (401, "bad-key")
    with alone.database.write() as session:
        session.execute(delete(Decision).where(Decision.seq == 2))
    broken = ada.get("/v1/chain").json()
    assert (broken["ok"], broken["length"]) == (False, 1)
    assert "decision 2" in broken["problems"][0]


def test_a_badge_is_public_only_where_its_owner_says_so(server: Server, ada: httpx.Client, tmp_path: Path):
    candidate = decide(server, ada, tmp_path / "badge")

    def badge(sha256: str = candidate, policy: str = "strict") -> httpx.Response:
        return httpx.get(f"{server.url}/badges/{sha256}/{policy}.svg")

    private, unknown = badge(), badge(NOBODY)
    assert "no decision" in private.text
    assert (private.status_code, private.content) == (unknown.status_code, unknown.content)
    same = {"etag", "cache-control", "content-type", "content-length"}
    assert {name: private.headers[name] for name in same} == {name: unknown.headers[name] for name in same}
    assert private.headers["cache-control"] == "public, max-age=60"
    path = f"/v1/candidates/{candidate}/badge"
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    assert slug(eve.post(path, json={"public": True})) == (403, "not-owner")
    assert slug(httpx.post(server.url + path, json={"public": True})) == (401, "bad-key")
    assert slug(ada.post(f"/v1/candidates/{NOBODY}/badge", json={"public": True})) == (404, "unknown-candidate")
    assert ada.post(path, json={"public": True}).json()["public_badge"] is True
    public = badge()
    assert "inconclusive" in public.text
    assert candidate not in public.text
    assert httpx.get(str(public.url), headers={"If-None-Match": public.headers["etag"]}).status_code == 304
    assert badge(policy="other").text == badge(NOBODY, "other").text
    assert server.admin.post(path, json={"public": False}).json()["public_badge"] is False
    assert badge().content == unknown.content
    old = ada.get("/v1/gates/strict/badge.svg", params={"subject": candidate})
    assert (old.status_code, "inconclusive" in old.text) == (200, True)


def test_a_full_disk_is_told_apart(settings, database):
    app = create_app(settings)
    with TestClient(app) as client:
        key = (settings.root / "key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        engine = app.state.context.database.engine

        @event.listens_for(engine, "begin")
        def _no_more_pages(connection: Any) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")

        bodies = [
            {"kind": "train.transformer", "spec": {"seed": seed}, "labels": ["x" * 64] * 32} for seed in range(99)
        ]
        answers = (client.post("/v1/jobs", json=body, headers=headers) for body in bodies)
        refused = next(answer for answer in answers if answer.status_code != 202)
        assert slug(refused) == (507, "storage-full")  # type: ignore[arg-type]
        assert client.get("/v1/jobs", headers=headers).status_code == 200


def test_readiness_says_that_artifacts_cannot_be_stored(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "artifacts").write_text("no folder")
    app = create_app(Server("", home, None).settings)  # type: ignore[arg-type]
    with TestClient(app) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"], answer.json()["storage"]) == (503, "not ready", False)
        assert client.get("/healthz").status_code == 200


def test_a_worker_says_why_it_takes_no_jobs(server: Server, ada: httpx.Client):
    with server.database.write() as session:
        session.add(Worker(id="full", boot_id="b", host="h", pid=1, queues=["train"], device="cpu", slots=1,
                           started_at=0.0, seen_at=0.0, state="ready", problem="the disk is full"))  # fmt: skip
    problems = {worker["id"]: worker["problem"] for worker in ada.get("/v1/workers").json()["items"]}
    assert problems["full"] == "the disk is full"
    with server.database.write() as session:
        session.execute(delete(Worker))


def test_the_digest_of_a_badge_is_not_shortened(server: Server):
    digest = hashlib.sha256(b"x").hexdigest()
    assert httpx.get(f"{server.url}/badges/{digest[:12]}/strict.svg").status_code == 404


def test_a_badge_has_the_name_of_a_policy(server: Server):
    assert httpx.get(f"{server.url}/badges/{'a' * 64}/中文.svg").status_code == 404
