"""Ids and digests may be shortened wherever they are given."""

import httpx

from services.states import State
from services.tables import Job
from tests.api.serving import Server, slug
from tests.api.test_gates import judge, make_candidate


def test_a_job_is_named_by_its_first_digits(ada: httpx.Client, submit, server: Server):
    job = submit()
    short = job["id"][:20]
    for path in ("", "/logs", "/lineage", "/panels"):
        assert ada.get(f"/v1/jobs/{short}{path}").status_code == 200
    assert ada.get(f"/v1/jobs/{short}").json()["id"] == job["id"]
    events = ada.get(f"/v1/jobs/{short}/events", headers={"Accept": "application/json"})
    assert events.json()["items"]
    assert ada.get("/v1/jobs", params={"parent": short}).json()["items"] == []
    assert ada.get("/v1/decisions", params={"job": short}).json()["items"] == []
    consumer = submit(
        kind="train.activations", spec={}, inputs={"transformer": {"job": short, "output": "transformer"}}
    )
    assert consumer["inputs"]["transformer"][0]["job"] == job["id"]
    eve = server.client(server.make_key("eve", ["read"]))
    assert slug(eve.get(f"/v1/jobs/{short}")) == (404, "unknown-job")
    assert slug(ada.get(f"/v1/jobs/{job['id'][:7]}")) == (404, "unknown-job")
    assert ada.post(f"/v1/jobs/{short}:cancel").json()["id"] == job["id"]


def add_job(server: Server, like: str, job_id: str) -> None:
    """Store a copy of a job under an id of our choice."""
    with server.database.write() as session:
        row = session.get_one(Job, like)
        columns = {column.key: getattr(row, column.key) for column in Job.__table__.columns}
        session.add(Job(**columns | {"id": job_id, "execution_id": None, "state": State.CANCELLED}))


def test_an_ambiguous_prefix_names_what_it_may_mean(ada: httpx.Client, submit, server: Server):
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    mine, hers = submit()["id"], submit(eve)["id"]
    twins = [f"00000001{digit * 16}" for digit in "12"]
    for twin in twins:
        add_job(server, mine, twin)
    add_job(server, hers, "00000001" + "3" * 16)
    refused = ada.get("/v1/jobs/00000001")
    assert slug(refused) == (409, "ambiguous-id")
    assert refused.json()["matches"] == twins
    assert ada.get("/v1/jobs/000000011").json()["id"] == twins[0]
    assert eve.get("/v1/jobs/00000001").json()["id"] == "00000001" + "3" * 16
    body = {"kind": "train.activations", "inputs": {"transformer": {"job": "00000001", "output": "transformer"}}}
    assert slug(ada.post("/v1/jobs", json=body)) == (409, "ambiguous-id")
    assert slug(ada.get("/v1/jobs?parent=00000001")) == (409, "ambiguous-id")


def test_digests_decisions_and_keys_are_named_by_their_first_digits(
    ada: httpx.Client, admin: httpx.Client, submit, server: Server, tmp_path
):
    candidate = make_candidate(server, submit, tmp_path)
    assert ada.get(f"/v1/artifacts/{candidate[:8]}").headers["etag"] == f'"{candidate}"'
    assert ada.head(f"/v1/artifacts/{candidate[:12]}").status_code == 200
    assert ada.get(f"/v1/candidates/{candidate[:12]}").json()["sha256"] == candidate
    job = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate[:12]}).json()
    assert job["inputs"]["candidate"] == [candidate]
    claim, decision, stored = judge(server, ada, job, tmp_path)
    server.finish(claim, decision, {"decision": [stored]})
    latest = ada.get("/v1/gates/strict/decisions/latest", params={"subject": candidate[:10]}).json()
    assert latest["candidate"] == candidate
    assert ada.get(f"/v1/decisions/{latest['id'][:20]}").json() == latest
    assert ada.get(f"/v1/decisions/{latest['id'][:20]}/bundle").json()["candidate"] == candidate
    stress = {"kind": "stress.trained_vs_random", "spec": {}, "inputs": {"saes": [candidate[:9]] * 2}}
    rows = submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")["id"]
    stress["inputs"]["activations"] = {"job": rows[:20], "output": "activations"}
    assert ada.post("/v1/jobs", json=stress).json()["inputs"]["saes"] == [candidate] * 2
    assert slug(ada.get(f"/v1/artifacts/{'0' * 9}")) == (404, "unknown-artifact")
    key = admin.post("/v1/keys", json={"name": "short", "scopes": ["read"], "owner": "ada"}).json()
    assert admin.delete(f"/v1/keys/{key['id'][:20]}").json()["id"] == key["id"]
