import json

import pytest

from api import report
from husai_core.panels import Headline
from services.queries.jobs import JobView
from services.queries.panels import JobPanels
from services.states import State
from services.tables import Job
from tests.api.pages.browser import Page

HOSTILE = "<script>alert('x')</script>"


def finished(server, submit, tmp_path, **fields):
    """A job that a worker has finished with a result that no version of its kind ever wrote."""
    job = submit(kind="train.transformer", **fields)
    manifest = server.stored("manifest", {"manifest.json": json.dumps(MANIFEST).encode()}, tmp_path)
    server.finish(server.claim(job["id"]), {"test_accuracy": 0.5, "remark": HOSTILE}, {"manifest": [manifest]})
    return job


MANIFEST = {
    "git": {"commit": "abc", "dirty": True},
    "capability": {"device": "cpu", "cpu": {"model": HOSTILE}, "libraries": {"torch": "2"}},
    "seeds": {"seed": 3},
}


def test_a_finished_job_has_a_report_that_needs_nothing_but_itself(server, ada, submit, tmp_path):
    job = finished(server, submit, tmp_path)
    response = ada.get(f"/v1/jobs/{job['id']}/report")
    assert response.status_code == 200
    assert "sandbox" in response.headers["content-security-policy"]
    page = Page(response.text)
    assert not {e.tag for e in page.elements} & {"script", "link", "img", "iframe", "object"}
    assert "http" not in response.text
    assert HOSTILE not in response.text
    for words in ("test accuracy", "0.500", "abc, with uncommitted changes", f"husai rerun {job['id']} --check"):
        assert words in page.text


def test_the_report_is_the_same_every_time(server, ada, submit, tmp_path):
    job = finished(server, submit, tmp_path)
    first, second = (ada.get(f"/v1/jobs/{job['id']}/report").content for _ in range(2))
    assert first == second


def test_links_and_sections_agree(server, ada, submit, tmp_path):
    page = Page(ada.get(f"/v1/jobs/{finished(server, submit, tmp_path)['id']}/report").text)
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    assert {e.attributes["href"] for e in page.all("a")} <= {f"#{id}" for id in ids}


def test_a_waiting_and_a_cancelled_job_have_a_report(ada, submit):
    job = submit()
    assert "Queued." in Page(ada.get(f"/v1/jobs/{job['id']}/report").text).text
    ada.post(f"/v1/jobs/{job['id']}:cancel")
    page = Page(ada.get(f"/v1/jobs/{job['id']}/report").text)
    assert "Cancelled" in page.text
    assert f"husai retry {job['id']}" in page.text


def test_a_study_shows_its_jobs(ada):
    body = {"kind": "study.pipeline", "spec": {"preset": "smoke"}, "reuse": "never"}
    study = ada.post("/v1/jobs", json=body).json()
    page = Page(ada.get(f"/v1/jobs/{study['id']}/report").text)
    children = ada.get("/v1/jobs", params={"parent": study["id"]}).json()["items"]
    assert children
    for child in children:
        (section,) = page.all("section", id=f"job-{child['id']}")
        assert child["name"] in section.text
    ada.post(f"/v1/jobs/{study['id']}:cancel")


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_shown(state):
    job = Job(
        id="a" * 24, kind="gone.kind", name=HOSTILE, state=state, reason="r", detail=HOSTILE, labels=[HOSTILE],
        device="cpu", created_at=0.0, finished_at=1.0 if state.final else None, inputs={},
    )  # fmt: skip
    shown = JobPanels(job.id, job.kind, job.name, job.kind, state, [Headline(text=HOSTILE)], [])
    text = report.page(shown, JobView(job, None, HOSTILE, None, None), {}, None)  # type: ignore[arg-type]
    assert Page(text).all("h1")
    assert "<script" not in text
