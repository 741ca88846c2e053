"""A decision from asking to checking it offline, against the real service."""

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from husai.errors import Exit
from tests.husai.conftest import Husai
from tests.husai.test_transport import JOB, reply, service


def test_waiting_for_a_job_a_decision_or_a_candidate_gives_one_answer(
    husai: Husai, decided: dict[str, str], tmp_path: Path
) -> None:
    files = ["--summary", tmp_path / "summary.md", "--junit", tmp_path / "junit.xml"]
    done = husai("gate", "wait", decided["job"], *files, "--json")
    assert done.json["verdict"] == "inconclusive", "two seeds and no evidence settle nothing"
    assert done.code == Exit.INCONCLUSIVE
    assert husai("gate", "wait", decided["decision"]).code == Exit.INCONCLUSIVE
    by_candidate = husai("gate", "wait", "--candidate", decided["candidate"], "--json")
    assert (by_candidate.code, by_candidate.json["id"]) == (Exit.INCONCLUSIVE, decided["decision"])
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert int(suite.get("tests", "0")) == len(done.json["rules"]) > 0
    summary = (tmp_path / "summary.md").read_text()
    assert decided["candidate"] in summary
    assert decided["decision"] in summary, "how to check it offline"


def test_waiting_ends_at_the_timeout_and_refuses_other_jobs(husai: Husai, trained: dict[str, str]) -> None:
    undecided = ["--candidate", trained["candidate"], "--policy", "reference-2026-02"]
    assert husai("gate", "wait", *undecided, "--timeout", "0").code == Exit.TIMEOUT
    assert husai("gate", "wait", "--candidate", "0" * 64).code == Exit.USAGE
    done = husai("gate", "wait", trained["sae"])
    assert (done.code, "makes no decision" in done.err) == (Exit.USAGE, True)
    assert husai("gate", "wait", "0" * 24).code == Exit.USAGE
    shown = husai("gate", "show", trained["sae"])
    assert (shown.code, "makes no decision" in shown.err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("failed", "error.input", Exit.SERVICE),
        ("failed", "infra.oom", Exit.SERVICE),
        ("cancelled", None, Exit.SERVICE),
        ("timed_out", None, Exit.TIMEOUT),
        ("blocked", None, Exit.INCONCLUSIVE),
    ],
)
def test_a_gate_job_without_a_verdict_does_not_count_as_a_fail(
    run: Husai, monkeypatch: pytest.MonkeyPatch, state: str, reason: str | None, code: Exit
) -> None:
    document = JOB | {"kind": "release.gate", "state": state, "reason": reason}
    with service(reply(200, document)) as (url, _):
        monkeypatch.setenv("HUSAI_URL", url)
        monkeypatch.setenv("HUSAI_KEY", "husai_x")
        assert run("gate", "wait", JOB["id"]).code == code


def test_the_timeout_holds_though_the_service_hangs_or_stays_away(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    away = reply(503, {"detail": "away"}, Retry_After="1")
    for answer in (lambda _: time.sleep(4), away):
        with service(answer) as (url, _):
            monkeypatch.setenv("HUSAI_URL", url)
            assert run("gate", "wait", JOB["id"], "--timeout", "0").code == Exit.TIMEOUT


def test_asking_twice_with_one_key_gives_one_job(husai: Husai, trained: dict[str, str]) -> None:
    jobs = [husai("gate", "decide", trained["candidate"], "--key", "twice", "--json").json for _ in range(2)]
    assert jobs[0]["id"] == jobs[1]["id"]


def test_a_decision_is_shown_and_its_bundle_verifies_offline(
    husai: Husai, decided: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.json"
    shown = husai("gate", "show", decided["decision"], "--bundle", bundle)
    assert shown.code == Exit.OK
    assert "inconclusive" in shown.out
    assert shown.out == husai("gate", "show", decided["job"]).out
    assert decided["decision"][:12] in shown.out
    text = " ".join(shown.out.split())
    assert "To decide provenance, reconstruction, stability, stability.rescaled: run stress.trained_vs_random" in text
    assert "This version cannot decide external.saebench: it has no job kind benchmark.saebench." in text
    reasons = [rule["reason"] for rule in husai("gate", "show", decided["decision"], "--json").json["rules"]]
    assert all(text.count(f": {reason}") == 1 for reason in set(reasons) if reason)
    monkeypatch.setenv("HUSAI_HOME", str(tmp_path / "nowhere"))
    verified = husai("verify", bundle, "--json")
    assert (verified.code, verified.json["ok"], verified.json["trusted"]) == (Exit.OK, True, False)
    document = json.loads(bundle.read_text())
    (tmp_path / "key").write_text(document["public_key"])
    assert husai("verify", bundle, "--public-key", tmp_path / "key", "--json").json["trusted"]
    said = " ".join(husai("verify", bundle).out.split())
    assert said.startswith(
        f"matches its own figures, signer unknown: inconclusive for candidate {decided['candidate']}"
    )
    assert "verified" not in said
    assert "policy 'strict' as it comes with husai" in said
    (tmp_path / "other").write_text("A" * 43 + "=")
    assert husai("verify", bundle, "--public-key", tmp_path / "other").code == Exit.MISMATCH
    (tmp_path / "several").write_text(f"{'A' * 43}=\n{document['public_key']}\n")
    verified = husai("verify", bundle, "--public-key", tmp_path / "several")
    assert verified.out.startswith("verified: inconclusive for candidate")
    assert "a key that you trust" in " ".join(verified.out.split())
    document["decision"]["verdict"] = "pass"
    bundle.write_text(json.dumps(document))
    assert husai("verify", bundle).code == Exit.MISMATCH


def test_the_chain_is_whole_and_the_services_keys_make_a_bundle_verified(
    husai: Husai, decided: dict[str, str], tmp_path: Path
) -> None:
    whole = husai("audit", "chain", "--export", tmp_path / "head.json")
    assert (whole.code, "is whole" in whole.out) == (Exit.OK, True), whole.out
    assert husai("audit", "chain", "--anchor", tmp_path / "head.json").code == Exit.OK
    bundle = json.loads(husai("gate", "show", decided["job"], "--bundle", tmp_path / "bundle.json", "--json").out)
    (tmp_path / "keys").write_text(husai("keys", "signing").out)
    verified = husai("verify", tmp_path / "bundle.json", "--public-key", tmp_path / "keys")
    assert (verified.code, verified.out.split(":")[0], bundle["verdict"]) == (Exit.OK, "verified", "inconclusive")


def test_a_badge_is_seen_by_everybody_once_it_is_public(husai: Husai, decided: dict[str, str]) -> None:
    public = husai("badge", decided["candidate"][:12], "--public")
    assert public.code == Exit.OK, public.err
    shown = httpx.get(public.out.strip(), trust_env=False)
    assert (shown.status_code, "inconclusive" in shown.text) == (200, True)
    assert husai("badge", decided["candidate"], "--private").code == Exit.OK


def test_a_rerun_of_a_study_is_compared_child_by_child(husai: Husai, decided: dict[str, str]) -> None:
    done = husai("rerun", decided["job"], "--check", "--json")
    assert done.code == Exit.OK, done.out
    rows = {(row["job"], row["output"]): row for row in done.json["rows"]}
    assert rows["release.gate/good-saes", "saes[0]"]["first"] == rows["release.gate/good-saes", "saes[0]"]["second"]
    assert rows["release.gate", "decision"]["verdict"] == "equal"
    assert rows["release.gate", "manifest"]["verdict"] == "equal"


def test_the_export_of_a_study_has_a_folder_per_child(husai: Husai, decided: dict[str, str], tmp_path: Path) -> None:
    files = set(husai("export", decided["job"], tmp_path / "out", "--json").json["files"])
    assert {
        "manifest.json",
        "decision/decision.json",
        "good-saes/saes/0/cfg.json",
        "bad-stability/result.json",
    } <= files


def test_show_points_from_decisions_and_saes_to_what_shows_them(husai: Husai, decided: dict[str, str]) -> None:
    decision, candidate = decided["decision"], decided["candidate"]
    assert f"{decision} is a decision: husai gate show {decision}" in husai("show", decision).err
    assert f"{candidate} is an SAE: husai candidates" in husai("show", candidate).err
    assert husai("show", "f" * 12).err.startswith("husai: There is no job")
