"""What only a key with the scope `gate` may ask for."""

import pytest

from tests.api.serving import Server, slug

JOB = {"kind": "train.activations", "spec": {"source": "synthetic"}, "reuse": "never"}


@pytest.mark.parametrize(("scopes", "allowed"), [(["read", "submit"], False), (["read", "submit", "gate"], True)])
def test_the_priority_of_gates_needs_their_scope(server: Server, scopes: list[str], allowed: bool) -> None:
    client = server.client(server.make_key("ada", scopes))
    urgent = client.post("/v1/jobs", json=JOB | {"priority": "gate"})
    if allowed:
        assert urgent.json()["priority"] == "gate"
    else:
        assert slug(urgent) == (403, "wrong-scope")
    assert client.post("/v1/jobs", json=JOB | {"priority": "interactive"}).status_code == 202


def test_an_urgent_job_is_not_retried_without_the_scope(server: Server) -> None:
    urgent = server.client(server.make_key("eve", ["read", "submit", "gate"]))
    job = urgent.post("/v1/jobs", json=JOB | {"priority": "gate"}).json()
    assert urgent.post(f"/v1/jobs/{job['id']}:cancel").status_code == 202
    client = server.client(server.make_key("eve", ["read", "submit"]))
    assert slug(client.post(f"/v1/jobs/{job['id']}:retry")) == (403, "wrong-scope")
