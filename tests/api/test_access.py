"""Where results are not shared, another owner's work stays private."""

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from tests.api.serving import Server, slug, start, stop
from tests.api.test_artifacts import upload
from tests.api.test_gates import judge, make_candidate


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that does not share results."""
    running = start(tmp_path_factory.mktemp("private"), HUSAI_DEVICE="cpu", HUSAI_SHARE_RESULTS="0")
    yield running
    stop(running)


def caller(server: Server, owner: str) -> httpx.Client:
    return server.client(server.make_key(owner, ["read", "submit", "gate"]))


def test_uploads_are_private(private: Server):
    ada, eve, data = caller(private, "ada"), caller(private, "eve"), b"weights of ada"
    index, blob = upload(ada, data).json()["sha256"], hashlib.sha256(data).hexdigest()
    for digest in (index, blob):
        assert slug(eve.get(f"/v1/artifacts/{digest}")) == (404, "unknown-artifact")
        assert eve.head(f"/v1/artifacts/{digest}").status_code == 404
        assert ada.get(f"/v1/artifacts/{digest}").status_code == 200
        assert private.admin.get(f"/v1/artifacts/{digest}").status_code == 200
    assert slug(eve.post("/v1/artifacts/trees", json={"files": {"mine": blob}})) == (422, "unknown-artifact")
    assert slug(eve.post("/v1/jobs", json={"kind": "data.import", "inputs": {"file": index}})) == (
        422,
        "unknown-artifact",
    )
    assert ada.post("/v1/jobs", json={"kind": "data.import", "inputs": {"file": index}}).status_code == 202
    assert eve.get("/v1/artifacts").json()["items"] == []
    upload(eve, data, "same.bin")
    assert eve.get(f"/v1/artifacts/{blob}").content == data
    assert slug(eve.get(f"/v1/artifacts/{index}")) == (404, "unknown-artifact")
    for _ in range(2):
        assert upload(eve, data).json()["sha256"] == index
    assert {client.get(f"/v1/artifacts/{index}").status_code for client in (ada, eve)} == {200}
    assert eve.post("/v1/jobs", json={"kind": "data.import", "inputs": {"file": index}}).status_code == 202


def test_candidates_and_decisions_are_private(private: Server, tmp_path):
    ada, eve = caller(private, "ada"), caller(private, "eve")

    def submit(**body):
        return ada.post("/v1/jobs", json=body).json()

    candidate = make_candidate(private, submit, tmp_path)
    ask = {"candidate": candidate}
    job = ada.post("/v1/gates/strict/decisions", json=ask).json()
    claim, decision, stored = judge(private, ada, job, tmp_path)
    private.finish(claim, decision, {"decision": [stored]})
    latest, badge = f"/v1/gates/strict/decisions/latest?subject={candidate}", "/v1/gates/strict/badge.svg"
    decision_id = ada.get(latest).json()["id"]
    assert slug(eve.post("/v1/gates/strict/decisions", json=ask)) == (404, "unknown-candidate")
    for path, problem in {
        f"/v1/candidates/{candidate}": "unknown-candidate",
        f"/v1/decisions/{decision_id}": "unknown-decision",
        f"/v1/decisions/{decision_id}/bundle": "unknown-decision",
        latest: "unknown-decision",
        f"/v1/artifacts/{candidate}": "unknown-artifact",
        f"/v1/artifacts/{stored.sha256}": "unknown-artifact",
    }.items():
        assert slug(eve.get(path)) == (404, problem)
        assert {client.get(path).status_code for client in (ada, private.admin)} == {200}
    for path in ("/v1/candidates", "/v1/decisions"):
        assert [len(client.get(path).json()["items"]) for client in (eve, ada, private.admin)] == [0, 1, 1]
    verdicts = ["inconclusive" in client.get(badge, params={"subject": candidate}).text for client in (eve, ada)]
    assert verdicts == [False, True]


def test_equal_work_belongs_to_everyone_who_did_it(private: Server, tmp_path):
    digests = set()
    for owner in ("ada", "eve"):
        client, folder = caller(private, owner), tmp_path / owner
        folder.mkdir()
        body = {"kind": "train.activations", "spec": {"source": "synthetic", "seed": 77}}
        claim = private.claim(client.post("/v1/jobs", json=body).json()["id"])
        rows = private.stored("activations", {"cfg.json": b"equal"}, folder)
        private.finish(claim, {}, {"activations": [rows]})
        assert client.get(f"/v1/artifacts/{rows.sha256}").status_code == 200
        job = client.post("/v1/jobs", json={"kind": "train.sae", "inputs": {"activations": rows.sha256}})
        assert job.status_code == 202
        digests.add(rows.sha256)
    assert len(digests) == 1


def test_evidence_of_others_is_not_used(private: Server, tmp_path):
    ada, eve = caller(private, "ada"), caller(private, "eve")
    judged = {}
    for owner, client in {"ada": ada, "eve": eve}.items():
        (tmp_path / owner).mkdir()

        def submit(client=client, **body):
            return client.post("/v1/jobs", json=body).json()

        folder = tmp_path / "shared"
        folder.mkdir()
        candidate = make_candidate(private, submit, folder)
        activations = client.get("/v1/jobs?kind=train.sae&limit=1&include=inputs").json()["items"][0]["inputs"][
            "activations"
        ]
        inputs = {"saes": [candidate, candidate], "activations": activations}
        body = {"kind": "stress.trained_vs_random", "inputs": inputs}
        claim = private.claim(client.post("/v1/jobs", json=body).json()["id"])
        result = private.stored("result", {"result.json": owner.encode()}, tmp_path / owner)
        private.finish(claim, {"subject": [candidate]}, {"result": [result]})
        judged[owner] = (candidate, result.sha256)
        folder.rename(tmp_path / f"{owner}-done")
    assert judged["ada"][0] == judged["eve"][0]
    for owner, client in {"ada": ada, "eve": eve}.items():
        candidate, known = judged[owner]
        job = client.post("/v1/gates/strict/decisions", json={"candidate": candidate}).json()
        assert job["inputs"]["evidence"] == [known]
        body = {"kind": "train.activations", "spec": {"source": "synthetic"}, "reuse": "never"}
        claim = private.claim(client.post("/v1/jobs", json=body).json()["id"])
        other = private.stored("result", {"result.json": b"other"}, tmp_path / owner)
        private.finish(claim, {}, {"result": [other]})
        ask, key = {"candidate": candidate, "evidence": [other.sha256]}, {"Idempotency-Key": "more"}
        asked = [client.post("/v1/gates/strict/decisions", json=ask, headers=key).json() for _ in range(2)]
        assert asked[0]["inputs"]["evidence"] == [known, other.sha256]
        assert asked[0]["id"] == asked[1]["id"]
        training = client.get("/v1/jobs?kind=train.sae&state=succeeded").json()["items"][0]["id"]
        trained = {"job": training, "output": "saes"}
        for key, named in {"digest": candidate, "output": trained, "one": trained | {"index": 0}}.items():
            ask = {"kind": "release.gate", "inputs": {"candidate": named, "evidence": other.sha256}}
            asked = [client.post("/v1/jobs", json=ask, headers={"Idempotency-Key": key}) for _ in range(2)]
            assert [answer.status_code for answer in asked] == [202, 200]
            assert asked[0].json()["inputs"]["evidence"] == [known, other.sha256]
