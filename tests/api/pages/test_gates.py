import json

import pytest

from api.pages import gates
from services.tables import Candidate
from tests.api.pages.browser import Browser
from tests.api.test_gates import judge, make_candidate

HOSTILE = "<script>alert('x')</script>"
RULE = {
    "name": "stability", "title": f"Same features? {HOSTILE}", "evidence": "stress.trained_vs_random",
    "evidence_digest": "e" * 64, "statistic": "x", "value": 0.4, "low": 0.3, "high": 0.5, "bound": "low", "op": ">=",
    "threshold": 0.05, "verdict": "pass", "reason": HOSTILE, "settle": None,
}  # fmt: skip


@pytest.fixture
def candidate(server, submit, tmp_path):
    """A candidate of the researcher, whose facts hold markup."""
    job = submit(kind="train.transformer")
    claim = server.claim(job["id"])
    stored = server.stored(
        "sae", {"cfg.json": json.dumps({"architecture": "topk", "job": job["id"]}).encode()}, tmp_path
    )
    server.finish(claim, {}, {"saes": [stored]})
    with server.database.write() as session:
        facts = {"architecture": HOSTILE, "d_sae": 128, "hook": {"nested": 1}}
        facts["husai"] = {"hook_name": "blocks.3.hook_mlp_out", "claimed": {"model_name": "pythia-70m"}}
        session.merge(
            Candidate(sha256=stored.sha256, execution_id=claim.execution_id, siblings=[], facts=facts, created_at=1.0)
        )
    return stored.sha256


def test_candidates_and_one_of_them(browser, candidate):
    page = browser.get("/candidates")
    assert f"/candidates/{candidate}" in {e.attributes.get("href") for e in page.all("a")}
    assert "no decision" in page.text
    assert "hook_name blocks.3.hook_mlp_out" in page.text
    assert "model_name pythia-70m" in page.text
    page = browser.get(f"/candidates/{candidate[:12]}")
    assert HOSTILE in page.text
    assert not [e for e in page.all("script") if "src" not in e.attributes]
    assert browser.client.get("/candidates/" + "0" * 64).status_code == 404


def test_a_policy_is_asked_with_a_form(browser, candidate):
    where = f"/candidates/{candidate}"
    assert browser.client.post(f"{where}/decide", data={"policy": "strict"}).status_code == 403
    response = browser.post(f"{where}/decide", {"policy": "strict"}, at=where)
    assert response.status_code == 303
    job = browser.client.get(f"/v1{response.headers['location']}").json()
    assert (job["kind"], job["inputs"]["candidate"]) == ("release.gate", [candidate])
    assert browser.post(f"{where}/decide", {"policy": "nothing"}, at=where).status_code == 404


def test_a_badge_is_published_by_its_owner_alone(server, browser, candidate):
    where = f"/candidates/{candidate}"
    assert "Private" in browser.get(where).text
    assert browser.client.post(f"{where}/badge", data={"public": "yes"}).status_code == 403
    assert browser.post(f"{where}/badge", {"public": "yes"}, at=where).status_code == 303
    assert browser.client.get(f"/v1{where}").json()["public_badge"] is True
    (picture,) = browser.get(where).all("img", height="20")
    assert Browser(server.url).client.get(str(picture.attributes["src"])).status_code == 200
    other = Browser(server.url)
    other.sign_in(server.make_key("eve", ["read", "submit"]))
    assert other.post(f"{where}/badge", {"public": "no"}, at=where).status_code == 403


def test_a_decision_shows_its_rules_against_their_bars_and_how_to_verify(server, browser, ada, submit, tmp_path):
    candidate = make_candidate(server, submit, tmp_path)
    job = ada.post("/v1/gates/strict/decisions", json={"candidate": candidate}).json()
    claim, decision, stored = judge(server, ada, job, tmp_path)
    server.finish(claim, decision, {"decision": [stored]})
    (id,) = [row["id"] for row in ada.get("/v1/decisions").json()["items"] if row["candidate"] == candidate]
    assert f"/decisions/{id}" in {e.attributes.get("href") for e in browser.get("/decisions").all("a")}
    page = browser.get(f"/decisions/{id}")
    assert len(page.all("svg")) == sum(rule["threshold"] is not None for rule in decision["rules"])
    assert "trained here or attested" in page.text
    for rule in decision["rules"]:
        assert rule["title"] in page.text
    assert f"husai verify {id[:8]}.json" in page.text
    assert "Inconclusive" in page.all("h1")[0].text
    assert "inconclusive" in browser.get(f"/candidates/{candidate}").text
    assert browser.client.get("/decisions/" + "0" * 24).status_code == 404


def test_a_rule_is_drawn_with_its_interval_its_bar_and_its_need():
    shown = gates.view(RULE)
    assert shown.figure == "0.400 [0.300, 0.500]"
    assert shown.need == "lower end ≥ 0.05"
    assert 'class="judged good"' in shown.plot
    assert "<script" not in shown.plot
    without = gates.view(RULE | {"value": None, "low": None, "high": None, "verdict": "inconclusive"})
    assert (without.figure, "no figure" in without.plot) == ("–", True)


def test_a_rule_shows_whose_training_stands_behind_it_and_whether_it_was_settled():
    change = {"value": 0.034, "low": 0.021, "high": 0.047}
    moved = {"provenance": "claimed", "retrained": True, "margin": 0.02, "change": change, "settled": False}
    shown = gates.view(RULE | moved)
    assert shown.settled == "not settled: last doubling of training 0.034 [0.021, 0.047], within ±0.02 needed"
    assert shown.training == "claimed, retrained here by the claimed recipe"
    alike = gates.view(RULE | moved | {"comparable": "no"})
    assert alike.training == "claimed, retrained here by the claimed recipe, which makes other SAEs"
    assert gates.view(RULE | moved | {"change": None}).settled == "not settled: its change was not measured"
    assert gates.view(RULE | {"provenance": "trained here"}).settled == ""
    accepting = RULE | {"threshold": None, "accepts": ["trained here", "attested"], "provenance": "claimed"}
    shown = gates.view(accepting)
    assert (shown.figure, shown.need, shown.plot) == ("claimed", "trained here or attested", "")


def test_where_the_lab_shares_everybody_sees_a_candidate(server, candidate):
    other = Browser(server.url)
    other.sign_in(server.make_key("eve", ["read"]))
    assert other.get(f"/candidates/{candidate}")
