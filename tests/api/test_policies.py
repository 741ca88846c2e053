"""A lab's own policies over HTTP."""

import itertools
import json
from pathlib import Path

import httpx
import pytest

from husai_core.release import bundle as bundles
from husai_core.release.policy import Policy, load
from tests.api.serving import Server, slug
from tests.api.test_gates import judge, make_candidate

NUMBERS = itertools.count(1)
STABILITY = next(rule for rule in load("internal").rules if rule.name == "stability").model_dump(mode="json")


def lab(**changes: object) -> dict[str, object]:
    """A policy under a name of its own."""
    document = {"name": f"lab-{next(NUMBERS)}", "version": 1, "title": "Ours", "confidence": 0.95}
    return document | {"max_age_days": None, "two_valued": False, "rules": [STABILITY]} | changes


def test_a_policy_is_added_read_and_retired(admin: httpx.Client, ada: httpx.Client):
    document = lab()
    name = document["name"]
    added = admin.post("/v1/policies", json=document)
    assert added.status_code == 201, added.text
    policy = added.json()
    assert {field: policy[field] for field in document} == document
    assert (policy["packaged"], policy["retired_at"]) == (False, None)
    assert policy["digest"] == Policy.model_validate(document).digest
    assert ada.get(f"/v1/policies/{name}").json() == policy
    assert policy in ada.get("/v1/policies").json()["items"]
    assert slug(admin.post("/v1/policies", json=document)) == (409, "policy-version")
    assert admin.post("/v1/policies", json=document | {"version": 2}).json()["version"] == 2
    assert ada.get(f"/v1/policies/{name}", params={"version": 1}).json() == policy
    retired = admin.post(f"/v1/policies/{name}:retire").json()
    assert (retired["version"], retired["retired_at"] is None) == (2, False)
    assert slug(admin.post(f"/v1/policies/{name}:retire")) == (409, "retired-policy")
    assert slug(admin.post("/v1/policies/strict:retire")) == (409, "policy-taken")
    assert slug(admin.post("/v1/policies/nothing:retire")) == (404, "unknown-policy")


def test_only_an_administrator_sets_the_bar(server: Server):
    client = server.client(server.make_key("ci", ["read", "gate"], "ci"))
    assert slug(client.post("/v1/policies", json=lab())) == (403, "wrong-scope")
    assert slug(client.post("/v1/policies/strict:retire")) == (403, "wrong-scope")


@pytest.mark.parametrize(
    ("changes", "status", "problem", "detail"),
    [
        ({"name": "strict"}, 409, "policy-taken", "comes with HUSAI"),
        ({"rules": [STABILITY | {"evidence": "stress.odd"}]}, 422, "invalid-policy", "did you mean stress.ood?"),
        ({"rules": [STABILITY | {"statistic": "pwmc_excess"}]}, 422, "invalid-policy", "did you mean pwmcc_excess"),
        ({"rules": [STABILITY | {"threshold": 2, "attainable": None}]}, 422, "invalid-policy", "cannot be reached"),
        ({"confidence": 0.999}, 422, "invalid-policy", "confidence 0.999 cannot be reached"),
        ({"title": "bell \x07"}, 422, "invalid-policy", "control characters"),
        ({"rules": []}, 422, "invalid-request", "rules"),
        ({"rules": [STABILITY | {"margin": -1}]}, 422, "invalid-request", "rules.0.margin: must be more than 0"),
        ({"rules": [{"accepts": ["anybody"]}]}, 422, "invalid-request", "rules.0.accepts.0"),
        ({"name": "with space"}, 422, "invalid-request", "name"),
    ],
)
def test_what_can_never_decide_is_refused(
    admin: httpx.Client, changes: dict[str, object], status: int, problem: str, detail: str
):
    answer = admin.post("/v1/policies", json=lab(**changes))
    assert slug(answer) == (status, problem)
    assert detail in answer.json()["detail"]


def test_a_gate_decides_by_a_labs_policy_and_its_bundle_needs_no_service(
    admin: httpx.Client, ada: httpx.Client, submit, server: Server, tmp_path: Path
):
    document = lab()
    name = document["name"]
    admin.post("/v1/policies", json=document)
    candidate = make_candidate(server, submit, tmp_path)
    job = ada.post(f"/v1/gates/{name}/decisions", json={"candidate": candidate}).json()
    assert job["spec"]["policy_document"]["rules"] == [STABILITY]
    policy = Policy.model_validate(job["spec"]["policy_document"])
    assert job["spec"]["policy_digest"] == policy.digest
    claim, decision, stored = judge(server, ada, job, tmp_path, policy)
    server.finish(claim, decision, {"decision": [stored]})
    latest = ada.get(f"/v1/gates/{name}/decisions/latest", params={"subject": candidate}).json()
    assert (latest["policy"], latest["policy_digest"]) == (name, policy.digest)
    bundle = ada.get(f"/v1/decisions/{latest['id']}/bundle").json()
    assert bundles.verify(json.loads(json.dumps(bundle))).ok
    assert "inconclusive" in ada.get(f"/v1/gates/{name}/badge.svg", params={"subject": candidate}).text

    admin.post(f"/v1/policies/{name}:retire")
    assert slug(ada.post(f"/v1/gates/{name}/decisions", json={"candidate": candidate})) == (409, "retired-policy")
    assert ada.get(f"/v1/gates/{name}/decisions/latest", params={"subject": candidate}).json() == latest


def test_a_job_cannot_bring_its_own_policy(ada: httpx.Client, submit, server: Server, tmp_path: Path):
    candidate = make_candidate(server, submit, tmp_path)
    document = lab()
    spec = {"policy": document["name"], "policy_document": document}
    body = {"kind": "release.gate", "spec": spec, "inputs": {"candidate": candidate}}
    assert slug(ada.post("/v1/jobs", json=body)) == (404, "unknown-policy")
    body["spec"] = {"policy": "strict", "policy_document": document | {"name": "strict"}}
    assert slug(ada.post("/v1/jobs", json=body)) == (422, "invalid-spec")


def test_a_misspelt_name_gets_the_nearest_and_a_bad_rule_is_not_called_none(admin: httpx.Client):
    misspelt = admin.get("/v1/policies/strct").json()
    assert "did you mean strict?" in misspelt["detail"]
    assert "internal" in misspelt["detail"]
    assert misspelt["suggestions"] == ["strict"]
    bad = admin.post("/v1/policies", json=lab(rules=[STABILITY | {"threshold": "high"}])).json()
    assert "must be a number" in bad["detail"]
    assert "at least 1 element" not in bad["detail"]
    empty = admin.post("/v1/policies", json={}).json()["detail"]
    assert "rules: is missing" in empty
