"""Keys and scopes."""

import time

import httpx

from tests.api.serving import Server, slug


def test_without_a_good_key_nothing_below_v1_answers(server: Server):
    good = server.make_key("ada", ["read"])
    expired = server.make_key("ada", ["read"], expires_at=1.0)
    for headers in (
        {},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer x"},
        {"Authorization": f"Bearer {good[:-1]}~"},
        {"Authorization": f"Bearer {good[:-8]}" + "A" * 8},
    ):
        response = httpx.get(f"{server.url}/v1/jobs", headers=headers)
        assert slug(response) == (401, "bad-key")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert good[15:-8] not in response.text
    assert slug(server.client(expired).get("/v1/jobs")) == (401, "expired-key")
    assert server.client(good).get("/v1/jobs").status_code == 200
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert httpx.get(server.url + path).status_code == 200
    assert slug(httpx.get(f"{server.url}/docs")) == (404, "not-found")


def test_scopes_are_enforced(server: Server):
    reader = server.client(server.make_key("rita", ["read"]))
    submitter = server.client(server.make_key("sam", ["submit"]))
    job = {"kind": "train.transformer"}
    assert slug(reader.post("/v1/jobs", json=job)) == (403, "wrong-scope")
    assert slug(submitter.get("/v1/jobs")) == (403, "wrong-scope")
    assert slug(reader.post("/v1/gates/strict/decisions", json={"candidate": "0" * 64})) == (403, "wrong-scope")
    assert slug(reader.post("/v1/keys", json={"name": "x", "scopes": ["admin"]})) == (403, "wrong-scope")


def test_what_decides_needs_the_gate_scope(ada, submit, server: Server):
    sam = server.client(server.make_key("sam", ["read", "submit"]))
    for body in ({"kind": "study.pipeline"}, {"kind": "release.gate", "inputs": {"candidate": "0" * 64}}):
        refused = sam.post("/v1/jobs", json=body)
        assert slug(refused) == (403, "wrong-scope")
        assert refused.json()["required"] == "gate"
    study = submit(server.client(server.make_key("sam", ["read", "submit", "gate"])), kind="study.pipeline", spec={})
    for action in ("retry", "rerun"):
        assert slug(sam.post(f"/v1/jobs/{study['id']}:{action}")) == (403, "wrong-scope")
    assert sam.post("/v1/jobs", json={"kind": "train.transformer"}).status_code in (200, 202)


def test_a_key_lives_from_making_to_revoking(admin, server: Server):
    created = admin.post("/v1/keys", json={"name": "ci", "scopes": ["read"], "owner": "robot", "role": "ci"})
    assert created.status_code == 201
    assert created.headers["cache-control"] == "no-store"
    key = created.json()
    robot = server.client(key["token"])
    listed = robot.get("/v1/keys")
    assert [item["id"] for item in listed.json()["items"]] == [key["id"]]
    assert key["token"] not in listed.text
    assert "mac" not in listed.json()["items"][0]
    assert {item["owner"] for item in admin.get("/v1/keys?limit=200").json()["items"]} >= {"admin", "robot"}
    eve = server.client(server.make_key("eve", ["read"]))
    assert slug(eve.delete(f"/v1/keys/{key['id']}")) == (404, "unknown-key")
    more = admin.post("/v1/keys", json={"name": "gate", "scopes": ["read", "gate"], "owner": "robot"}).json()
    refused = robot.delete(f"/v1/keys/{more['id']}")
    assert (slug(refused), refused.json()["required"]) == ((403, "wrong-scope"), "gate")
    assert server.client(more["token"]).delete(f"/v1/keys/{more['id']}").status_code == 200
    gone = admin.delete(f"/v1/keys/{key['id']}")
    assert gone.json()["revoked_at"] is not None
    assert slug(robot.get("/v1/keys")) == (401, "revoked-key")


def test_a_key_may_not_exceed_its_owner(admin):
    body = {"name": "n", "scopes": ["submit"], "owner": "robot2", "role": "ci"}
    assert slug(admin.post("/v1/keys", json=body)) == (409, "wrong-role")
    assert slug(admin.post("/v1/keys", json={"name": "n", "scopes": ["root"]})) == (422, "invalid-request")
    assert slug(admin.post("/v1/keys", json={"name": "n", "scopes": []})) == (422, "invalid-request")


def test_an_owner_keeps_its_role(admin):
    body = {"name": "n", "scopes": ["read"], "owner": "robot3"}
    assert admin.post("/v1/keys", json=body | {"role": "ci"}).status_code == 201
    assert admin.post("/v1/keys", json=body).status_code == 201
    other = admin.post("/v1/keys", json=body | {"role": "researcher"})
    assert slug(other) == (409, "wrong-role")
    assert other.json()["detail"] == "robot3 is ci, not researcher."


def test_an_expiry_takes_effect(admin, server: Server):
    created = admin.post("/v1/keys", json={"name": "brief", "scopes": ["read"], "expires_in_days": 0.5 / 86_400})
    brief = server.client(created.json()["token"])
    deadline = time.monotonic() + 10
    while (response := brief.get("/v1/keys")).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert slug(response) == (401, "expired-key")
