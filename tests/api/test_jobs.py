"""Submitting, reading and cancelling over HTTP."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from api.app import create_app
from api.routes import jobs
from husai_core.panels import PANELS
from services import leases
from services.accounts import Principal
from services.artifacts import Store
from services.queries import panels
from services.states import State
from services.tables import Event, Execution, Job
from tests.api.serving import Server, slug

UNKNOWN = "0" * 24
DIGEST = "a" * 64


def test_submit_answers_202_with_location_and_document(ada, submit):
    response = ada.post(
        "/v1/jobs", json={"kind": "train.transformer", "spec": {"seed": 7}, "labels": ["a/b"], "priority": "batch"}
    )
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert response.headers["etag"] == f'"{job["id"]}-{job["version"]}"'
    assert response.headers["retry-after"] == "1"
    assert (job["state"], job["queue"], job["owner"], job["labels"]) == ("queued", "train", "ada", ["a/b"])
    assert job["spec"]["p"] == 113
    assert job["created_at"].endswith("Z")
    assert (job["outputs"], job["result"], job["priority"]) == ({}, None, "batch")
    assert ada.get(response.headers["location"]).json() == job


def test_bad_submissions_name_the_field(ada):
    def post(body):
        return ada.post("/v1/jobs", json=body)

    unknown = post({"kind": "train.everything"})
    assert slug(unknown) == (422, "unknown-kind")
    assert "train.transformer" in unknown.json()["known"]
    assert slug(post({"spec": {}})) == (422, "invalid-request")
    for spec, detail in (
        ({"stpes": 3}, "spec.stpes: unknown field; did you mean steps?"),
        ({"steps": 0}, "spec.steps: must be at least 1"),
        ({"lr": "fast"}, "spec.lr: must be a number"),
    ):
        response = post({"kind": "train.transformer", "spec": spec})
        assert slug(response) == (422, "invalid-spec")
        assert response.json()["detail"] == detail
    nested = post({"kind": "train.sae", "spec": {"recipe": {"d_sae": 4, "k": -1}}})
    assert nested.json()["errors"][0]["field"].startswith("spec.recipe.")
    extra = post({"kind": "train.transformer", "colour": 1})
    assert slug(extra) == (422, "invalid-request")
    assert extra.json()["detail"] == "colour: unknown field"
    assert slug(post({"kind": "train.transformer", "priority": "now"})) == (422, "invalid-request")


def test_misspelt_names_are_told_what_was_meant(ada, submit):
    def post(**body):
        return ada.post("/v1/jobs", json=body)

    kind = post(kind="train.transfomer")
    assert kind.json()["detail"].startswith("There is no kind 'train.transfomer'; did you mean train.transformer?")
    assert kind.json()["suggestions"][0] == "train.transformer"
    assert "train.imported" not in kind.json()["detail"]
    broken = ada.post("/v1/jobs", content=b'{"kind": }', headers={"Content-Type": "application/json"})
    assert broken.json()["errors"][0]["field"] == "body"
    assert "body: is not JSON" in broken.json()["detail"]
    field = post(kind="train.activations", spec={"hok_name": "blocks.0.hook_resid_post"})
    assert field.json()["errors"][0]["suggestions"][0] == "hook_name"
    value = post(kind="train.sae", spec={"recipe": {"architecture": "topkk"}})
    assert value.json()["errors"][0]["field"] == "spec.recipe.architecture"
    assert "did you mean topk?" in value.json()["detail"]
    port = post(kind="train.sae", inputs={"activatons": DIGEST})
    assert (slug(port), port.json()["suggestions"]) == ((422, "unknown-input"), ["activations"])
    source = {"job": submit()["id"], "output": "transfomer"}
    output = post(kind="train.activations", inputs={"transformer": source})
    assert (slug(output), output.json()["suggestions"]) == ((422, "unknown-output"), ["transformer"])
    body = post(kind="train.transformer", prority="batch")
    assert body.json()["detail"] == "prority: unknown field; did you mean priority?"
    listed = ada.get("/v1/jobs?kind=train.sea")
    assert listed.json()["suggestions"] == ["train.sae"]


def test_an_index_beyond_what_there_is_is_refused(ada, submit, server: Server, tmp_path):
    source = submit()
    beyond = {"job": source["id"], "output": "transformer", "index": 1}
    refused = ada.post("/v1/jobs", json={"kind": "train.activations", "inputs": {"transformer": beyond}})
    assert slug(refused) == (422, "unknown-output")
    assert "number 0" in refused.json()["detail"]
    model = server.stored("transformer", {"cfg.json": b"index"}, tmp_path)
    server.finish(server.claim(source["id"]), {}, {"transformer": [model]})
    again = ada.post("/v1/jobs", json={"kind": "train.activations", "inputs": {"transformer": beyond}})
    assert slug(again) == (422, "unknown-output")
    submit(kind="train.activations", spec={}, inputs={"transformer": beyond | {"index": 0}})


def test_control_characters_are_refused(ada):
    def post(**body):
        return ada.post("/v1/jobs", json={"kind": "train.activations"} | body)

    for text in ("blocks.0\0", "a\nb", "\x7f", "\x85"):
        refused = post(spec={"hook_name": text})
        assert slug(refused) == (422, "invalid-spec")
        assert refused.json()["errors"] == [{"field": "spec.hook_name", "message": "control characters"}]
    label = post(labels=["fine", "a\0"])
    assert slug(label) == (422, "invalid-request")
    assert label.json()["errors"][0]["field"].startswith("labels.1")
    assert slug(post(inputs={"transformer": {"job": UNKNOWN, "output": "\0"}})) == (422, "invalid-request")


def test_bad_bodies_are_refused(ada):
    def post(content, type="application/json"):
        return ada.post("/v1/jobs", content=content, headers={"content-type": type})

    assert slug(post(b"{")) == (422, "invalid-request")
    assert slug(post(b'"\xff"')) == (400, "invalid-request")
    assert slug(post(b"[" * 100_000)) == (400, "invalid-request")
    assert slug(post(b"kind=x", "text/plain")) == (415, "unsupported-media-type")
    assert slug(post(b" " * (1 << 20) + b"{}")) == (413, "body-too-large")

    def endless():
        for _ in range(64):
            yield b" " * (1 << 16)

    assert slug(post(endless())) == (413, "body-too-large")


def test_inputs_are_checked_at_submission(ada, submit, server: Server):
    def post(**inputs):
        return ada.post("/v1/jobs", json={"kind": "train.sae", "inputs": inputs})

    assert slug(post()) == (422, "missing-input")
    assert slug(post(activations=DIGEST)) == (422, "unknown-artifact")
    assert slug(post(activations="not a digest")) == (422, "invalid-request")
    assert slug(post(activations=[{"job": UNKNOWN, "output": "activations"}])) == (404, "unknown-job")
    for output, problem in (("saes", "unknown-output"), ("transformer", "wrong-artifact-type")):
        assert slug(post(activations={"job": submit()["id"], "output": output})) == (422, problem)
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    hers = submit(eve)["id"]
    assert slug(post(activations={"job": hers, "output": "activations"})) == (404, "unknown-job")
    for spec in ({"source": "model"}, {"source": "language"}):
        unfit = ada.post("/v1/jobs", json={"kind": "train.activations", "spec": spec})
        assert slug(unfit) == (422, "unfit-input")
        assert "needs" in unfit.json()["detail"]
    source = {"job": submit()["id"], "output": "transformer"}
    job = submit(kind="train.activations", spec={}, inputs={"transformer": source})
    assert job["state"] == "waiting"
    assert job["digest"] is None


def test_dry_run_stores_nothing(ada, server: Server):
    with server.database.read() as session:
        before = session.scalar(select(func.count(Job.id)))
    response = ada.post("/v1/jobs?dry_run=true", json={"kind": "train.transformer", "spec": {"seed": 99}})
    assert response.status_code == 200
    (cell,) = response.json()["cells"]
    assert (cell["kind"], cell["spec"]["seed"], cell["spec"]["p"]) == ("train.transformer", 99, 113)
    missing = ada.post("/v1/jobs?dry_run=1", json={"kind": "train.sae"}).json()
    assert "activations" in missing["missing"][0]
    assert slug(ada.post("/v1/jobs?dry_run=1", json={"kind": "x"})) == (422, "unknown-kind")
    with server.database.read() as session:
        assert session.scalar(select(func.count(Job.id))) == before


def test_a_plan_tells_what_it_takes_and_what_is_missing(ada, server: Server):
    plan = ada.post("/v1/jobs?dry_run=true", json={"kind": "study.pipeline"}).json()
    top = {cell["name"]: cell for cell in plan["cells"] if "/" not in cell["name"]}
    assert {"activations", "sae", "rows-ood-french", "gate"} <= set(top)
    for name in ("activations", "sae"):
        assert top[name]["estimate"]["units"] > 0
    assert plan["estimate"]["units"] == pytest.approx(sum(cell["estimate"]["units"] for cell in top.values()))
    assert plan["estimate"]["memory_bytes"] > 0
    assert any(cell["name"].startswith("gate/") for cell in plan["cells"])
    absent = {"source": "language", "model": "nobody/no-such-model"}
    body = {"kind": "train.activations", "spec": absent}
    missing = ada.post("/v1/jobs?dry_run=true", json=body).json()["missing"]
    assert {"nobody/no-such-model"} == {asset["name"] for asset in missing if not isinstance(asset, str)}
    assert "hf download nobody/no-such-model" in missing[-1]["how"]


def test_a_plan_knows_inputs_that_do_not_exist_yet(ada, submit):
    """Nobody runs the jobs here: what they will make is foretold, job after job."""
    units = {}
    for d_model in (16, 64):
        rows = submit(kind="train.activations", spec={"source": "synthetic", "world": {"d_model": d_model}})
        source = {"job": rows["id"], "output": "activations"}
        body = {"kind": "train.sae", "inputs": {"activations": source}}
        units[d_model] = ada.post("/v1/jobs?dry_run=true", json=body).json()["estimate"]["units"]
    saes = {"job": submit(kind="train.sae", spec={}, inputs={"activations": source})["id"], "output": "saes"}
    body = {"kind": "stress.trained_vs_random", "inputs": {"saes": saes, "activations": source}}
    plan = ada.post("/v1/jobs?dry_run=true", json=body).json()
    assert units[64] > 1.5 * units[16]
    assert plan["estimate"]["units"] > units[64]
    assert plan["cells"][0]["inputs"] == {"saes": [saes | {"index": None}], "activations": [source | {"index": None}]}


def test_one_idempotency_key_makes_one_job(ada, server: Server):
    body = {"kind": "train.transformer", "spec": {"seed": 11}}

    def post(_):
        return ada.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(post, range(200)))
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert sorted(answer.status_code for answer in answers) == [200] * 199 + [202]
    other = ada.post("/v1/jobs", json=body | {"labels": ["x"]}, headers={"Idempotency-Key": "once"})
    assert slug(other) == (422, "idempotency-mismatch")
    eve = server.client(server.make_key("eve", ["submit"]))
    theirs = eve.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"})
    assert theirs.status_code == 202
    assert slug(ada.post("/v1/jobs", json=body, headers={"Idempotency-Key": "x" * 256})) == (422, "invalid-request")


def test_equal_specs_share_one_execution(ada, server: Server):
    body = {"kind": "train.transformer", "spec": {"seed": 12}}
    with ThreadPoolExecutor(16) as pool:
        ids = {answer.json()["id"] for answer in pool.map(lambda _: ada.post("/v1/jobs", json=body), range(50))}
    assert len(ids) == 50
    with server.database.read() as session:
        executions = session.scalars(select(Job.execution_id).where(Job.id.in_(ids))).all()
        assert len(set(executions)) == 1
        digest = session.get_one(Execution, executions[0]).digest
        assert session.scalar(select(func.count(Execution.id)).where(Execution.digest == digest)) == 1
    apart = ada.post("/v1/jobs", json=body | {"reuse": "never"}).json()
    with server.database.read() as session:
        assert session.get_one(Job, apart["id"]).execution_id not in executions


def test_cancel_retry_and_rerun_respect_the_state(ada, submit):
    job = submit()
    path = f"/v1/jobs/{job['id']}"
    assert slug(ada.post(f"{path}:retry")) == (409, "not-retryable")
    cancelled = ada.post(f"{path}:cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
    assert slug(ada.post(f"{path}:cancel")) == (409, "already-final")
    assert slug(ada.post(f"{path}:rerun"))[0] == 409
    again = ada.post(f"{path}:retry")
    assert again.status_code == 202
    assert again.json()["retry_of"] == job["id"]
    assert again.headers["location"] == f"/v1/jobs/{again.json()['id']}"
    assert ada.get(path).json()["state"] == "cancelled"


class Slow(Store):
    """Opens nothing before it may."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.may = threading.Event(), threading.Event()

    def open(self, digest):
        self.asked.set()
        assert self.may.wait(10), "nobody could write while the store was slow"
        return super().open(digest)


def test_others_write_while_a_rerun_waits_for_its_manifest(submit, server: Server, tmp_path):
    job, other = submit(), submit()
    claim, capability = server.claim(job["id"]), {"threads": 1, "cpu": {"capability": "DEFAULT"}}
    manifest = server.stored("manifest", {"manifest.json": json.dumps({"capability": capability}).encode()}, tmp_path)
    server.finish(claim, {"steps": 3}, {"manifest": [manifest]})
    context = create_app(server.settings).state.context
    context.store = store = Slow(server.settings.artifacts)
    principal = Principal(claim.owner_id, "ada", "researcher", frozenset({"submit"}), "key")
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(jobs.rerun, job["id"], context, principal)
        assert store.asked.wait(60)
        assert jobs.cancel(other["id"], context, principal).status_code == 202
        store.may.set()
        assert again.result().status_code == 202
    context.database.close()


def test_jobs_of_others_do_not_exist(admin: httpx.Client, submit, server: Server):
    job = submit()
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    for path in ("", "/events", "/logs", "/lineage", "/panels", "/report"):
        assert slug(eve.get(f"/v1/jobs/{job['id']}{path}")) == (404, "unknown-job")
    for action in ("cancel", "retry", "rerun"):
        assert slug(eve.post(f"/v1/jobs/{job['id']}:{action}")) == (404, "unknown-job")
    assert admin.get(f"/v1/jobs/{job['id']}").json()["owner"] == "ada"
    assert slug(eve.get("/v1/jobs/not-an-id")) == (404, "unknown-job")


def test_the_panels_of_a_job_and_of_a_study(ada, submit, server: Server):
    job = submit()
    empty = ada.get(f"/v1/jobs/{job['id']}/panels").json()
    assert (empty["job"], empty["kind"], empty["state"]) == (job["id"], "train.transformer", "queued")
    assert (empty["panels"], empty["children"]) == ([], [])
    assert empty["title"] == ada.get("/v1/kinds/train.transformer").json()["help"].splitlines()[0]
    server.finish(server.claim(job["id"]), {"steps": 3})
    shown = PANELS.validate_python(ada.get(f"/v1/jobs/{job['id']}/panels").json()["panels"])
    assert shown == panels.panels_of("train.transformer", {"steps": 3})
    study = submit(kind="study.pipeline", spec={"preset": "smoke", "transformer": {"seed": 56}})
    children = ada.get(f"/v1/jobs/{study['id']}/panels").json()["children"]
    rows = ada.get("/v1/jobs", params={"parent": study["id"]}).json()["items"]
    assert [(child["job"], child["name"], child["kind"]) for child in children] == [
        (row["id"], row["name"], row["kind"]) for row in rows
    ]
    ada.post(f"/v1/jobs/{study['id']}:cancel")


def test_a_finished_job_shows_outputs_and_result_and_is_reused(ada, submit, server: Server, tmp_path):
    job = submit()
    claim = server.claim(job["id"])
    running = ada.get(f"/v1/jobs/{job['id']}").json()
    assert (running["state"], running["attempt"]) == ("running", 1)
    assert running["version"] > job["version"]
    model = server.stored("transformer", {"cfg.json": b"{}"}, tmp_path)
    server.finish(claim, {"steps": 3}, {"transformer": [model]})
    done = ada.get(f"/v1/jobs/{job['id']}").json()
    assert (done["state"], done["result"], done["outputs"]) == (
        "succeeded",
        {"steps": 3},
        {"transformer": [model.sha256]},
    )
    again = ada.post("/v1/jobs", json={"kind": job["kind"], "spec": job["spec"]})
    assert again.status_code == 200
    assert (again.json()["reused_from"], again.json()["result"]) == (job["id"], {"steps": 3})
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    hers = [eve.post("/v1/jobs", json={"kind": job["kind"], "spec": job["spec"]}).json() for _ in range(2)]
    assert [job["reused_from"] for job in hers] == [f"execution:{claim.execution_id}", hers[0]["id"]]
    graph = ada.get(f"/v1/jobs/{job['id']}/lineage").json()
    assert [job["id"], model.sha256, "transformer"] in graph["edges"]
    assert {node["id"]: node["label"] for node in graph["nodes"]}[model.sha256] == "transformer"
    consumer = submit(kind="train.activations", spec={}, inputs={"transformer": model.sha256})
    edges = ada.get(f"/v1/jobs/{consumer['id']}/lineage").json()["edges"]
    assert [model.sha256, consumer["id"], "transformer"] in edges
    assert [job["id"], model.sha256, "transformer"] in edges


def test_a_study_shows_its_children(ada):
    planned = ada.post("/v1/jobs?dry_run=true", json={"kind": "study.pipeline"}).json()["cells"]
    job = ada.post("/v1/jobs", json={"kind": "study.pipeline"}).json()
    assert (job["state"], job["queue"]) == ("waiting", "control")
    children = ada.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]
    cells = {(cell["name"], cell["kind"]) for cell in planned if "/" not in cell["name"]}
    assert {(child["name"], child["kind"]) for child in children} == cells
    assert {child["parent"] for child in children} == {job["id"]}
    graph = ada.get(f"/v1/jobs/{job['id']}/lineage").json()
    assert {tuple(edge) for edge in graph["edges"]} == {(job["id"], child["id"], "child") for child in children}
    report = ada.get(f"/v1/jobs/{job['id']}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert job["id"] in report.text
    assert ada.post(f"/v1/jobs/{job['id']}:cancel").json()["state"] == "cancelled"
    after = ada.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]
    assert {child["state"] for child in after} <= {"cancelled", "failed"}


def test_progress_tells_speed_and_the_time_that_is_left(ada, submit, server: Server):
    job = submit()
    claim = server.claim(job["id"])
    for done in (100, 300):
        with server.database.write() as session:
            report = {"done": done, "total": 1000, "unit": "rows"}
            leases.report(session, claim.execution_id, claim.attempt, report, [])
    with server.database.write() as session:
        first = session.scalars(select(Event).where(Event.execution_id == claim.execution_id, Event.type == "progress"))
        first.first().at -= 10
    (row,) = ada.get("/v1/jobs?limit=1").json()["items"]
    for progress in (row["progress"], ada.get(f"/v1/jobs/{job['id']}").json()["progress"]):
        assert progress["rate"] == pytest.approx(20, rel=0.2)
        assert progress["seconds_left"] == pytest.approx(700 / progress["rate"])
    server.finish(claim, {"steps": 3})
    assert ada.get(f"/v1/jobs/{job['id']}").json()["progress"]["rate"] is None


def test_a_blocked_job_names_what_it_waits_for(ada, submit, server: Server):
    job = submit()
    with server.database.write() as session:
        row = session.get_one(Job, job["id"])
        execution = session.get_one(Execution, row.execution_id)
        row.state = execution.state = State.BLOCKED
        execution.assets = [{"name": "gpt2", "how": "hf download gpt2"}]
    shown = ada.get(f"/v1/jobs/{job['id']}").json()
    assert (shown["state"], shown["assets"]) == ("blocked", [{"name": "gpt2", "how": "hf download gpt2"}])
    assert ada.get("/v1/jobs?limit=1").json()["items"][0]["assets"] == shown["assets"]
    ada.post(f"/v1/jobs/{job['id']}:cancel")
