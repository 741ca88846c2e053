"""Lists of jobs: pages, filters, what a row carries, and queries that are refused."""

import httpx
import pytest

from services.tables import Job
from tests.api.serving import Server, slug

UNKNOWN = "0" * 24


def test_pages_follow_each_other_without_gap_or_repeat(server: Server, submit):
    bob = server.client(server.make_key("bob", ["read", "submit"]))
    submitted = [submit(bob, labels=[f"l{n % 2}"])["id"] for n in range(7)]
    seen, path = [], "/v1/jobs?limit=3"
    while path:
        response = bob.get(path)
        seen += [job["id"] for job in response.json()["items"]]
        path = str(response.links["next"]["url"]) if "next" in response.links else None
        assert (path is None) == (response.json()["next"] is None)
    assert seen == submitted[::-1]
    labelled = bob.get("/v1/jobs", params={"label": "l1", "kind": "train.transformer", "state": "queued"}).json()
    assert [job["id"] for job in labelled["items"]] == submitted[1::2][::-1]
    assert bob.get("/v1/jobs?label=L1").json()["items"] == []
    assert bob.get("/v1/jobs?state=succeeded").json()["items"] == []


def test_a_list_of_jobs_carries_nothing_heavy(ada, submit, server: Server, tmp_path):
    job = submit()
    model = server.stored("transformer", {"cfg.json": b"heavy"}, tmp_path)
    server.finish(server.claim(job["id"]), {"curve": list(range(9999))}, {"transformer": [model]})
    response = ada.get("/v1/jobs?limit=1")
    (row,) = response.json()["items"]
    assert len(response.content) < 1000
    assert set(row) == {
        "id", "kind", "state", "reason", "detail", "name", "parent", "owner", "labels", "priority", "device", "queue",
        "progress", "assets", "attempt", "retry_of", "reused_from", "created_at", "started_at", "finished_at",
        "version", "summary",
    }  # fmt: skip
    assert {name: value for name, value in ada.get(f"/v1/jobs/{job['id']}").json().items() if name in row} == row
    (full,) = ada.get("/v1/jobs?limit=1&include=spec&include=outputs").json()["items"]
    assert full == row | {"spec": job["spec"], "outputs": {"transformer": [model.sha256]}}
    assert slug(ada.get("/v1/jobs?include=result")) == (422, "invalid-request")


def test_a_stored_result_has_no_start_before_its_job_was_made(ada, submit, server: Server):
    spec = {"source": "synthetic", "seed": 4711}
    first = submit(kind="train.activations", spec=spec)["id"]
    server.finish(server.claim(first), {}, {})
    again = ada.post("/v1/jobs", json={"kind": "train.activations", "spec": spec}).json()
    assert (again["reused_from"], again["started_at"]) == (first, None)
    earlier = ada.get(f"/v1/jobs/{first}").json()
    assert earlier["created_at"] <= earlier["started_at"] <= earlier["finished_at"]
    report = ada.get(f"/v1/jobs/{again['id']}/report").text
    assert "stored result" in report


def test_lists_of_jobs_can_be_narrowed(ada, admin: httpx.Client, submit, server: Server):
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    hers, study = (
        submit(eve)["id"],
        submit(kind="study.pipeline", spec={"preset": "smoke", "transformer": {"seed": 48}})["id"],
    )

    def ids(client: httpx.Client, **filters: str) -> list[str]:
        return [row["id"] for row in client.get("/v1/jobs", params={"limit": "200"} | filters).json()["items"]]

    assert hers in ids(admin, owner="eve")
    assert study not in ids(admin, owner="eve")
    assert ids(ada, owner="eve") == ids(ada, owner="nobody") == []
    children = ids(ada, parent=study)
    assert study in ids(ada, top="true")
    assert not set(children) & set(ids(ada, top="true"))
    assert set(children) <= set(ids(ada))
    ada.post(f"/v1/jobs/{study}:cancel")


@pytest.mark.parametrize("name", ["train.imported", "data.import"])
def test_jobs_under_an_earlier_name_of_their_kind_are_listed_under_both(
    ada: httpx.Client, submit, server: Server, name: str
):
    job = submit()["id"]
    with server.database.write() as session:
        session.get_one(Job, job).kind = "train.imported"
    rows = ada.get("/v1/jobs", params={"kind": name, "limit": "200"}).json()["items"]
    assert job in [row["id"] for row in rows]
    with server.database.write() as session:
        session.get_one(Job, job).kind = "train.transformer"


def test_the_next_page_is_named_by_its_path(ada, submit):
    submit(), submit()
    answer = ada.get("/v1/jobs?limit=1&top=true", headers={"Host": "evil.example"})
    link = answer.headers["link"]
    assert link.startswith("</v1/jobs?limit=1&top=true&cursor=")
    assert "evil" not in link
    assert ada.get(answer.links["next"]["url"]).status_code == 200


def test_bad_queries_are_refused(ada):
    assert slug(ada.get("/v1/jobs?cursor=%21")) == (400, "bad-cursor")
    assert slug(ada.get("/v1/jobs?cursor=WzFd")) == (400, "bad-cursor")
    for path in ("artifacts", "candidates", "decisions", "keys"):
        assert slug(ada.get(f"/v1/{path}?cursor=W10")) == (400, "bad-cursor")
    assert slug(ada.get("/v1/jobs?limit=0")) == (422, "invalid-request")
    assert slug(ada.get("/v1/jobs?state=lost")) == (422, "invalid-request")
    assert slug(ada.get("/v1/jobs?kind=train.nothing")) == (422, "unknown-kind")
    assert slug(ada.get("/v1/artifacts?type=saes")) == (422, "invalid-request")
    unknown = ada.get("/v1/jobs?limt=3")
    assert slug(unknown) == (422, "invalid-request")
    assert unknown.json()["detail"] == "limt: unknown query parameter"
    assert slug(ada.post("/v1/jobs/" + UNKNOWN + ":cancel?force=1")) == (422, "invalid-request")
    assert slug(ada.get("/v1/nothing")) == (404, "not-found")
    wrong = ada.put("/v1/jobs")
    assert slug(wrong) == (405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"]
