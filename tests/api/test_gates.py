"""Policies, candidates and decisions."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from husai_core.release import bundle as bundles
from husai_core.release import policy as policies
from husai_core.release.decide import decide
from husai_core.release.evidence import Control, Controls
from services.artifacts import Stored
from services.leases import Claim
from services.tables import ArtifactRow, Candidate, Job
from tests.api.serving import Server, slug

NOBODY = "f" * 64


def make_candidate(server: Server, submit, tmp_path) -> str:
    """Finish an SAE job as a worker would; returns the candidate's digest."""
    folders = [tmp_path / name for name in ("activations", "sae")]
    for folder in folders:
        folder.mkdir()
    source = server.claim(submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")["id"])
    rows = server.stored("activations", {"cfg.json": tmp_path.name.encode()}, folders[0])
    server.finish(source, {}, {"activations": [rows]})
    training = server.claim(submit(kind="train.sae", spec={}, inputs={"activations": rows.sha256}, reuse="never")["id"])
    cfg = f'{{"architecture":"topk","d_sae":64,"husai":{{"run":"{tmp_path.name}"}}}}'
    sae = server.stored("sae", {"cfg.json": cfg.encode()}, folders[1])
    server.finish(training, {}, {"saes": [sae]})
    return sae.sha256


def judge(
    server: Server,
    client: httpx.Client,
    job: dict[str, Any],
    tmp_path: Path,
    policy: policies.Policy | None = None,
) -> tuple[Claim, Any, Stored]:
    """Decide for a gate job as a worker would, up to where it reports the end: the claim, the decision, the files."""
    for child in client.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]:
        client.post(f"/v1/jobs/{child['id']}:cancel")
    claim = server.claim(job["id"])
    folder = tmp_path / "decision"
    folder.mkdir()
    policy, controls = (
        policy or policies.load("strict"),
        Controls(good=Control(reason="none"), bad=Control(reason="none")),
    )
    (candidate,) = job["inputs"]["candidate"]
    decision = decide(policy, candidate, [], controls, job["spec"]["as_of"]).model_dump(mode="json")
    bundles.write(folder, policy, [], controls, decision)
    return claim, decision, server.stored("decision", {}, folder)


def test_policies(ada):
    listed = ada.get("/v1/policies").json()["items"]
    assert {policy["name"] for policy in listed} >= {"strict", "reference-2026-02"}
    strict = ada.get("/v1/policies/strict").json()
    assert strict in listed
    assert {"name", "statistic", "threshold"} <= set(strict["rules"][1])
    assert "accepts" in strict["rules"][0]
    assert slug(ada.get("/v1/policies/lenient")) == (404, "unknown-policy")


def test_the_controls_of_gates_can_be_left_out(server: Server, ada, submit, tmp_path):
    candidate = make_candidate(server, submit, tmp_path)
    gate = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate}).json()
    children = ada.get("/v1/jobs", params={"parent": gate["id"]}).json()["items"]
    (child,) = [child["id"] for child in children if child["name"] == "good-activations"]
    control = server.stored("sae", {"cfg.json": b"a control"}, tmp_path / "activations")
    with server.database.write() as session:
        job = session.get_one(Job, child)
        session.add(ArtifactRow(sha256=control.sha256, type="sae", size=1, owner_id=job.owner_id, created_at=1.0))
        session.flush()
        facts = {"siblings": [], "facts": {}, "created_at": 1.0}
        session.add(Candidate(sha256=control.sha256, execution_id=job.execution_id, **facts))
    for controls, expected in (("true", {control.sha256, candidate}), ("false", {candidate})):
        answer = ada.get("/v1/candidates", params={"limit": "200", "controls": controls}).json()
        assert {item["sha256"] for item in answer["items"]} & {control.sha256, candidate} == expected
    ada.post(f"/v1/jobs/{gate['id']}:cancel")


def test_nothing_is_known_about_an_unknown_candidate(ada):
    assert slug(ada.get(f"/v1/candidates/{NOBODY}")) == (404, "unknown-candidate")
    assert slug(ada.post("/v1/gates/strict/decisions", json={"candidate": NOBODY})) == (404, "unknown-candidate")
    assert slug(ada.post("/v1/gates/lenient/decisions", json={"candidate": NOBODY})) == (404, "unknown-policy")
    none = ada.get(f"/v1/gates/strict/decisions/latest?subject={NOBODY}&wait=0.2")
    assert slug(none) == (404, "unknown-decision")
    assert "retry-after" in none.headers
    assert slug(ada.get("/v1/decisions/" + "0" * 24)) == (404, "unknown-decision")
    assert slug(ada.get("/v1/decisions/" + "0" * 24 + "/bundle")) == (404, "unknown-decision")
    assert slug(ada.get("/v1/gates/strict/decisions/latest")) == (422, "invalid-request")
    badge = ada.get(f"/v1/gates/strict/badge.svg?subject={NOBODY}")
    assert badge.headers["content-type"] == "image/svg+xml"
    assert "no decision" in badge.text


def test_a_candidate_can_be_judged(ada: httpx.Client, submit, server: Server, tmp_path):
    candidate = make_candidate(server, submit, tmp_path)
    document = ada.get(f"/v1/candidates/{candidate}").json()
    assert document["facts"]["d_sae"] == 64
    assert ada.get(f"/v1/jobs/{document['job']}").json()["kind"] == "train.sae"
    assert ada.get("/v1/candidates?limit=1").json()["items"][0]["sha256"] == candidate
    asked = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate})
    job = asked.json()
    assert asked.status_code == 202
    assert (job["kind"], job["priority"], job["inputs"]["candidate"]) == ("release.gate", "gate", [candidate])
    assert job["spec"]["policy"] == "strict"
    children = ada.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]
    assert children
    assert {child["parent"] for child in children} == {job["id"]}
    with server.database.read() as session:
        assert session.get_one(Candidate, candidate).siblings == []


@pytest.mark.parametrize("name", ["recipe", "claimed_recipe"])
def test_only_saes_of_one_recipe_are_siblings(ada: httpx.Client, submit, server: Server, tmp_path, name: str):
    source = server.claim(submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")["id"])
    (tmp_path / "rows").mkdir()
    rows = server.stored("activations", {"cfg.json": b"rows of a bank"}, tmp_path / "rows")
    server.finish(source, {}, {"activations": [rows]})
    training = server.claim(submit(kind="train.sae", spec={}, inputs={"activations": rows.sha256}, reuse="never")["id"])
    saes = []
    for k, seed in ((6, 0), (6, 1), (3, 0), (3, 1)):
        folder = tmp_path / f"{k}-{seed}"
        folder.mkdir()
        cfg = f'{{"architecture":"topk","husai":{{"{name}":{{"k":{k}}},"seed":{seed}}}}}'
        saes.append(server.stored("sae", {"cfg.json": cfg.encode()}, folder))
    server.finish(training, {}, {"saes": saes})
    digests = [sae.sha256 for sae in saes]
    siblings = [ada.get(f"/v1/candidates/{digest}").json()["siblings"] for digest in digests]
    assert siblings == [[digests[1]], [digests[0]], [digests[3]], [digests[2]]]


def test_a_seed_that_is_imported_alone_and_then_with_others_gets_its_siblings(
    ada: httpx.Client, submit, server: Server, tmp_path
):
    saes, digests = [], []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        cfg = f'{{"husai":{{"imported":true,"claimed_recipe":{{"k":3}},"claimed_seed":{seed},"at":"{folder}"}}}}'
        saes.append(server.stored("sae", {"cfg.json": cfg.encode()}, folder))
        digests.append(saes[-1].sha256)
    for outputs in (saes[:1], saes):
        job = submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")
        server.finish(server.claim(job["id"]), {}, {"saes": outputs})
    siblings = [ada.get(f"/v1/candidates/{digest}").json()["siblings"] for digest in digests]
    assert siblings == [[digests[1]], [digests[0]]]


def test_a_short_id_is_told_how_many_digits_it_needs(ada: httpx.Client):
    answer = ada.get("/v1/jobs/0d0947")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "There is no job '0d0947'. Give at least its first 8 digits."


def test_a_decision_reaches_who_waits_for_it(ada: httpx.Client, submit, server: Server, tmp_path):
    candidate = make_candidate(server, submit, tmp_path)
    job = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate}, headers={"Idempotency-Key": "g"}).json()
    again = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate}, headers={"Idempotency-Key": "g"})
    assert (again.status_code, again.json()["id"]) == (200, job["id"])
    claim, decision, stored = judge(server, ada, job, tmp_path)

    path = f"/v1/gates/strict/decisions/latest?subject={candidate}"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ada.get, f"{path}&wait=20")
        time.sleep(0.5)
        server.finish(claim, decision, {"decision": [stored]})
        answer = waiting.result(10)
    document = answer.json()
    assert (document["verdict"], document["candidate"], document["job"]) == ("inconclusive", candidate, job["id"])
    assert document["rules"] == decision["rules"]
    etag = answer.headers["etag"]
    assert ada.get(path, headers={"If-None-Match": etag}).status_code == 304
    read = ada.get(f"/v1/decisions/{document['id']}")
    assert read.json() == document
    assert "immutable" in read.headers["cache-control"]
    bundle = ada.get(f"/v1/decisions/{document['id']}/bundle").json()
    report = bundles.verify(bundle)
    assert (report.ok, report.verdict) == (True, "inconclusive")
    assert ada.get("/v1/decisions?limit=1").json()["items"] == [document]
    assert ada.get("/v1/decisions", params={"job": job["id"]}).json()["items"] == [document]
    children = ada.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]
    assert ada.get("/v1/decisions", params={"job": children[0]["id"]}).json()["items"] == []
    eve = server.client(server.make_key("eve", ["read"]))
    assert eve.get(f"/v1/decisions/{document['id']}").json() == document | {"job": None}
    early = {"kind": "release.gate", "spec": {"as_of": "2026-01-01T00:00:00Z"}, "inputs": {"candidate": candidate}}
    (tmp_path / "early").mkdir()
    claim, decision, stored = judge(server, ada, ada.post("/v1/jobs", json=early).json(), tmp_path / "early")
    server.finish(claim, decision, {"decision": [stored]})
    assert ada.get("/v1/decisions?limit=1").json()["items"][0]["as_of"] == early["spec"]["as_of"]
    assert ada.get(path).json() == document
    badge = ada.get(f"/v1/gates/strict/badge.svg?subject={candidate}")
    assert "inconclusive" in badge.text
    assert (
        ada.get(
            badge.url.path, params={"subject": candidate}, headers={"If-None-Match": badge.headers["etag"]}
        ).status_code
        == 304
    )


def test_a_gate_as_a_job_can_be_asked_for_twice_before_its_candidate_exists(ada: httpx.Client, submit, server: Server):
    rows = submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")["id"]
    source = {"job": rows, "output": "activations"}
    training = submit(kind="train.sae", spec={}, inputs={"activations": source})["id"]
    gate = {"kind": "release.gate", "inputs": {"candidate": {"job": training, "output": "saes", "index": 0}}}
    asked = [ada.post("/v1/jobs", json=gate, headers={"Idempotency-Key": "soon"}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 200]
    assert asked[0].json()["id"] == asked[1].json()["id"]


def test_a_gate_as_a_job_takes_the_evidence_about_its_own_candidate(
    ada: httpx.Client, submit, server: Server, tmp_path
):
    rows = server.claim(submit(kind="train.activations", spec={"source": "synthetic"}, reuse="never")["id"])
    (tmp_path / "rows").mkdir()
    activations = server.stored("activations", {"cfg.json": b"two"}, tmp_path / "rows")
    server.finish(rows, {}, {"activations": [activations]})
    training = submit(kind="train.sae", spec={}, inputs={"activations": activations.sha256})["id"]
    saes, about = [], {}
    for i in range(2):
        (tmp_path / f"sae{i}").mkdir()
        cfg = f'{{"architecture":"topk","d_sae":64,"husai":{{"two":{i}}}}}'
        saes.append(server.stored("sae", {"cfg.json": cfg.encode()}, tmp_path / f"sae{i}"))
    server.finish(server.claim(training), {}, {"saes": saes})
    for i, sae in enumerate(saes):
        (tmp_path / f"result{i}").mkdir()
        inputs = {"saes": [sae.sha256] * 2, "activations": activations.sha256}
        stress = server.claim(submit(kind="stress.trained_vs_random", spec={}, inputs=inputs)["id"])
        about[i] = server.stored("result", {"result.json": f"two {i}".encode()}, tmp_path / f"result{i}")
        server.finish(stress, {"subject": [sae.sha256]}, {"result": [about[i]]})
    for i, result in about.items():
        candidate = {"job": training, "output": "saes", "index": i}
        job = submit(kind="release.gate", spec={}, inputs={"candidate": candidate, "evidence": [result.sha256] * 2})
        assert job["inputs"]["evidence"] == [result.sha256]
