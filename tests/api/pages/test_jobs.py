import re

import pytest

from services import events
from services.tables import Execution, Job
from tests.api.pages.browser import Page
from tests.api.serving import Server

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def say(server: Server, job_id: str, type: str, data: dict) -> None:
    with server.database.write() as session:
        events.append(session, type, data, job=session.get_one(Job, job_id))


def test_the_list_has_filters_and_pages(browser, submit):
    jobs = [submit(labels=[f"run:{i}"]) for i in range(3)]
    page = browser.get("/jobs")
    assert {f"/jobs/{job['id']}" for job in jobs} <= {e.attributes.get("href") for e in page.all("a")}
    page = browser.get("/jobs?label=run:1&state=queued&kind=train.transformer")
    titles = [e.attributes["href"] for e in page.all("a", class_="title")]
    assert f"/jobs/{jobs[1]['id']}" in titles
    assert f"/jobs/{jobs[0]['id']}" not in titles
    assert browser.client.get(page_twin(page)).json()["items"][0]["id"] == jobs[1]["id"]
    assert "No jobs like these" in browser.get("/jobs?label=nothing-of-this-name").text
    assert browser.client.get("/jobs?cursor=nonsense").status_code == 400


def page_twin(page: Page) -> str:
    (twin,) = [e.attributes["href"] for e in page.all("a") if e.text == "This page as JSON"]
    return str(twin)


def test_a_long_list_goes_on(browser, submit):
    for _ in range(42):
        submit()
    page = browser.get("/jobs")
    (older,) = [e.attributes["href"] for e in page.all("a") if e.text == "Older jobs"]
    first, second = (
        {e.attributes["href"] for e in p.all("a", class_="title")} for p in (page, browser.get(str(older)))
    )
    assert len(first) == 40
    assert second
    assert not first & second


def test_the_jobs_of_a_study_are_folded_into_it(browser, ada):
    body = {"kind": "study.pipeline", "spec": {"preset": "smoke"}, "reuse": "never"}
    study = ada.post("/v1/jobs", json=body).json()
    children = ada.get("/v1/jobs", params={"parent": study["id"]}).json()["items"]
    titles = {e.attributes["href"] for e in browser.get("/jobs").all("a", class_="title")}
    assert f"/jobs/{study['id']}" in titles
    assert not {f"/jobs/{child['id']}" for child in children} & titles
    page = browser.get(f"/jobs/{study['id']}")
    assert len(page.all("details", class_="job")) == len(children)
    inside = browser.get("/jobs?children=true")
    assert f"/jobs/{children[0]['id']}" in {e.attributes.get("href") for e in inside.all("a")}
    ada.post(f"/v1/jobs/{study['id']}:cancel")


def test_a_job_shows_its_states_curves_log_and_command(server, browser, submit):
    job = submit()
    for step in range(3):
        say(server, job["id"], "metrics", {"step": step, "values": {"loss/seed 0": 1.0 + step, "loss/seed 1": 2.0}})
    say(server, job["id"], "log", {"text": "a line of the log"})
    page = browser.get(f"/jobs/{job['id']}")
    assert page.all("ol", class_="timeline")[0].text.split()[0] == "waiting"
    assert len(page.all("svg")) == 1
    assert "a line of the log" in page.all("pre", class_="log")[0].text
    assert f"husai show {job['id']}" in page.text
    assert page.all("div", id="summary")[0].attributes["data-events"] == f"/v1/jobs/{job['id']}/events"
    assert browser.client.get(page_twin(page)).json()["id"] == job["id"]


def test_figures_that_are_not_finite_leave_a_gap_in_the_curve(server, browser, submit):
    job = submit()
    for step, loss in enumerate((1.0, None, 2.0)):
        say(server, job["id"], "metrics", {"step": step, "values": {"loss": loss, "never finite": None}})
    assert len(browser.get(f"/jobs/{job['id']}").all("svg")) == 1


def test_progress_is_shown_with_its_unit(server, browser, submit):
    job = submit()
    claim = server.claim(job["id"])
    with server.database.write() as session:
        execution = session.get_one(Execution, claim.execution_id)
        execution.progress = {"done": 50.0, "total": 200.0, "unit": "test rows"}
    say(server, job["id"], "metrics", {"step": 50, "values": {"loss": 1.0}})
    page = browser.get(f"/jobs/{job['id']}")
    assert page.all("progress", value="50.0", max="200.0")
    assert "50 of 200 test rows" in page.text
    assert page.all("text", class_="name")[0].text == "rows", "the axis of the curve counts them, too"


def test_cancelling_and_retrying_need_the_token_and_then_work(browser, submit):
    job = submit()
    where = f"/jobs/{job['id']}"
    assert browser.client.post(f"{where}/cancel", data={"x": "1"}).status_code == 403
    assert browser.post(f"{where}/cancel", at=where).headers["location"] == where
    assert browser.client.get(f"/v1{where}").json()["state"] == "cancelled"
    again = browser.post(f"{where}/retry", at=where).headers["location"]
    assert re.fullmatch(r"/jobs/[0-9a-f]{24}", again)
    assert again != where
    refused = browser.post(f"{where}/cancel", at=where)
    assert refused.status_code == 409
    assert "has ended already" in refused.text


def test_a_key_that_may_only_read_is_shown_no_buttons(server, visitor, submit):
    job = submit()
    visitor.sign_in(server.make_key("ada", ["read"]))
    page = visitor.get(f"/jobs/{job['id']}")
    assert not [e for e in page.all("form") if "cancel" in (e.attributes.get("action") or "")]
    assert visitor.post(f"/jobs/{job['id']}/cancel", at="/jobs").status_code == 403


def test_somebody_elses_job_is_not_there(server, visitor, submit):
    job = submit()
    visitor.sign_in(server.make_key("eve", ["read", "submit"]))
    response = visitor.client.get(f"/jobs/{job['id']}")
    assert response.status_code == 404
    assert "There is no job" in response.text
    assert job["id"] not in visitor.client.get("/jobs").text


@pytest.mark.parametrize("path", ["", "/report"])
def test_script_in_texts_is_never_markup(server, browser, submit, path):
    job = submit()
    say(server, job["id"], "log", {"text": HOSTILE})
    say(server, job["id"], "metrics", {"step": 1, "values": {HOSTILE: 1.0, f"loss/{HOSTILE}": 2.0}})
    with server.database.write() as session:
        row = session.get_one(Job, job["id"])
        row.detail, row.name = HOSTILE, HOSTILE
    text = browser.client.get(f"{'/v1' if path else ''}/jobs/{job['id']}{path}").text
    assert "alert" in text
    assert "<img src=x" not in text
    assert "<script>" not in text
    listed = browser.client.get("/jobs?children=true").text
    assert "<img src=x" not in listed


def test_pages_carry_no_inline_script_or_style(browser, submit):
    for path in ("/jobs", f"/jobs/{submit()['id']}"):
        response = browser.client.get(path)
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
        assert "style=" not in response.text
        named = {name for e in Page(response.text).elements for name in e.attributes}
        assert not [name for name in named if name.startswith("on")]
        scripts = [e.attributes.get("src", "") for e in Page(response.text).all("script")]
        assert all(str(src).startswith("/static/") for src in scripts)


def test_static_files_are_kept_by_their_digest(browser):
    page = browser.get("/jobs")
    for link in [str(e.attributes["href"]) for e in page.all("link")]:
        response = browser.client.get(link)
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert "immutable" not in browser.client.get(link.partition("?")[0]).headers["cache-control"]
    assert browser.client.get("/static/..%2Fapp.py").status_code == 404


def test_a_shortened_id_leads_to_the_job(browser, submit):
    job = submit()
    assert job["id"] in browser.get(f"/jobs/{job['id'][:20]}").text
    assert browser.client.get("/jobs/nonsense").status_code == 404
