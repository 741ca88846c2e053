"""The recipes of docs/ci-gate.md, as they are written there, against a real server."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from husai_core.release import bundle as bundles
from husai_core.release import policy as policies
from husai_core.release.decide import decide, instant
from husai_core.release.evidence import EvidenceItem, result_digest
from husai_core.release.judge import DAY
from tests.api.serving import ROOT, Server, start, stop
from tests.api.test_gates import NOBODY, make_candidate
from tests.husai.conftest import Husai
from tests.husai.test_transport import JOB, reply, service
from tests.husai_core.release.make import CANDIDATE, controls, full_evidence, interval

PAGE, SCRIPT = ROOT / "docs/ci-gate.md", ROOT / "docs/gate-wait.sh"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
SHELL = [text for language, text in BLOCKS if language == "sh" and text not in SCRIPT.read_text()]
MAKE_KEY, ASK_AND_WAIT, WITH_CURL, FETCH_BUNDLE, KEEP_SIGNER, VERIFY = SHELL
(WORKFLOW,) = (yaml.safe_load(text) for language, text in BLOCKS if language == "yaml")
CHANGED = {"pass": {}, "fail": {"pwmcc_excess": interval(-0.2)}}
CODES = {"pass": 0, "fail": 1, "inconclusive": 4}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
BASE = {"PATH": PATH, "PYTHONPATH": str(ROOT), "HUSAI_PATIENCE": "10"}
BARE = ("sh", "cat", "cp", "curl", "date", "mktemp", "rm", "sed", "sleep", "tr")

Shell = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A lab's server without workers, whose part the tests play."""
    running = start(tmp_path_factory.mktemp("lab"), HUSAI_DEVICE="cpu")
    yield running
    stop(running)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Start shell lines in a CI job's folder, with `husai`, `gate-wait.sh` and these variables."""
    shutil.copy(SCRIPT, tmp_path)
    started = []

    def begin(lines: str, **variables: str) -> subprocess.Popen[str]:
        pipe, environment = subprocess.PIPE, BASE | {"HOME": str(tmp_path)} | variables
        process = subprocess.Popen(
            ["/bin/sh", "-e", "-c", lines], cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def key(lab: Server) -> str:
    """A key as the page tells the administrator to make it."""
    admin = {"HUSAI_URL": lab.url, "HUSAI_KEY": (lab.home / "key").read_text()}
    return subprocess.check_output(["/bin/sh", "-e", "-c", MAKE_KEY], env=BASE | admin, text=True).strip()


@pytest.fixture
def ci(lab: Server, key: str, tmp_path: Path) -> dict[str, str]:
    """The variables of a CI job about a candidate of its own."""
    ada = lab.client(lab.make_key("ada", ["read", "submit", "gate"]))
    candidate = make_candidate(lab, lambda **body: ada.post("/v1/jobs", json=body).json(), tmp_path)
    return {"HUSAI_URL": lab.url, "HUSAI_KEY": key, "CANDIDATE": candidate, "HUSAI_REQUEST": "run-7"}


def gate_jobs(lab: Server, candidate: str) -> list[dict[str, Any]]:
    """The gate jobs about a candidate."""
    jobs = lab.admin.get(
        "/v1/jobs", params={"kind": "release.gate", "limit": 200, "include": ["spec", "inputs"]}
    ).json()["items"]
    return [job for job in jobs if job["inputs"]["candidate"] == [candidate]]


def judge(lab: Server, candidate: str, verdict: str, folder: Path) -> str:
    """Come to a verdict about a candidate as a worker would, as soon as somebody asks; returns the job."""
    deadline = time.monotonic() + 20
    while not (jobs := gate_jobs(lab, candidate)):
        assert time.monotonic() < deadline, "nobody asks"
        time.sleep(0.05)
    job, policy = jobs[0], policies.load("strict")
    for child in lab.admin.get("/v1/jobs", params={"parent": job["id"]}).json()["items"]:
        lab.admin.post(f"/v1/jobs/{child['id']}:cancel")
    as_of = job["spec"]["as_of"]
    known = full_evidence(policy, **CHANGED[verdict]) if verdict in CHANGED else []
    evidence = [about(candidate, item, instant(as_of) - DAY) for item in known]
    decision = decide(policy, candidate, evidence, controls(), as_of).model_dump(mode="json")
    assert decision["verdict"] == verdict
    folder.mkdir()
    bundles.write(folder, policy, evidence, controls(), decision)
    lab.finish(lab.claim(job["id"]), decision, {"decision": [lab.stored("decision", {}, folder)]})
    return str(job["id"])


def about(candidate: str, item: EvidenceItem, produced_at: float) -> EvidenceItem:
    """The same evidence about another candidate."""
    document = json.loads(json.dumps(item.document).replace(CANDIDATE, candidate))
    return EvidenceItem(digest=result_digest(document), produced_at=produced_at, document=document)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def without_python(folder: Path) -> str:
    """A PATH with nothing but what the script cannot do without."""
    folder.mkdir()
    for name in BARE:
        (folder / name).symlink_to(shutil.which(name) or name)
    return str(folder)


@pytest.mark.parametrize("verdict", CODES)
def test_curl_and_the_command_line_come_to_one_verdict(
    lab: Server,
    shell: Shell,
    ci: dict[str, str],
    run: Husai,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verdict: str,
) -> None:
    waiting = shell(WITH_CURL, **ci)
    job = judge(lab, ci["CANDIDATE"], verdict, tmp_path / "decision")
    code, out, err = ended(waiting)
    first, *reasons = out.splitlines()
    assert first == f"{verdict}: policy strict, candidate {ci['CANDIDATE']}, job {job}"
    assert (code, bool(reasons), err) == (CODES[verdict], verdict != "pass", "")
    assert run("verify", "bundle.json", "--json").json["verdict"] == verdict
    (tmp_path / "bundle.json").unlink()
    again = ended(shell(WITH_CURL, **ci, PATH=without_python(tmp_path / "bin")))
    assert again == (code, f"{first}\n", ""), "a retry gets the same answer, also where there is no Python"
    assert run("verify", "bundle.json", "--json").json["candidate"] == ci["CANDIDATE"]
    assert len(gate_jobs(lab, ci["CANDIDATE"])) == 1
    monkeypatch.setenv("HUSAI_URL", lab.url)
    monkeypatch.setenv("HUSAI_KEY", ci["HUSAI_KEY"])
    assert run("gate", "wait", job).code == code


def test_the_command_line_waits_resumes_and_keeps_what_verifies(
    lab: Server, shell: Shell, ci: dict[str, str], tmp_path: Path
) -> None:
    waiting = shell(ASK_AND_WAIT, **ci)
    job = judge(lab, ci["CANDIDATE"], "fail", tmp_path / "decision")
    assert ended(waiting)[0] == 1
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"
    assert ended(shell(ASK_AND_WAIT, **ci))[0] == 1
    assert [item["id"] for item in gate_jobs(lab, ci["CANDIDATE"])] == [job], (
        "the second time it waits for the same job"
    )
    assert (tmp_path / "summary.md").read_text().count("HUSAI release gate") == 2
    assert ended(shell(FETCH_BUNDLE + KEEP_SIGNER, **ci))[0] == 0
    code, out, _ = ended(shell(VERIFY))
    assert (code, f"verified: fail for candidate {ci['CANDIDATE']}" in " ".join(out.split())) == (0, True)


def test_the_workflow_writes_the_page_of_its_run(lab: Server, shell: Shell, ci: dict[str, str], tmp_path: Path) -> None:
    gate = WORKFLOW["jobs"]["gate"]
    context = {"vars.HUSAI_URL": lab.url, "secrets.HUSAI_KEY": ci["HUSAI_KEY"], "inputs.candidate": ci["CANDIDATE"]}
    environment = {name: context[value.strip("${ }")] for name, value in gate["env"].items()}
    page = tmp_path / "page.md"
    page.write_text("earlier\n")
    waiting = shell(gate["steps"][-1]["run"], **environment, GITHUB_STEP_SUMMARY=str(page))
    judge(lab, ci["CANDIDATE"], "inconclusive", tmp_path / "decision")
    assert ended(waiting)[0] == 4
    first, title, *lines = page.read_text().splitlines()
    assert (first, title.endswith("`strict`: inconclusive")) == ("earlier", True)
    assert any(ci["CANDIDATE"] in line for line in lines)


def test_a_timeout_leaves_the_job_which_a_retry_finds(lab: Server, shell: Shell, ci: dict[str, str]) -> None:
    short = ci | {"HUSAI_TIMEOUT": "3"}
    requests = [shell(WITH_CURL, **short | {"HUSAI_REQUEST": name}) for name in ("run-7", "run-7", "run-8")]
    by_cli = shell(ASK_AND_WAIT.replace("3600", "0.5"), **ci)
    going_on = []
    for request in requests:
        code, out, err = ended(request)
        assert (code, out) == (3, ""), err
        going_on.append([job["id"] for job in gate_jobs(lab, ci["CANDIDATE"]) if f"job {job['id']} goes on" in err])
    assert [len(jobs) for jobs in going_on] == [1, 1, 1]
    assert going_on[0] == going_on[1] != going_on[2]
    assert ended(by_cli)[0] == 3
    assert len(gate_jobs(lab, ci["CANDIDATE"])) == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"HUSAI_KEY": "husai_wrong"}, "bad-key"),
        ({"CANDIDATE": NOBODY}, "unknown-candidate"),
        ({"HUSAI_POLICY": "lenient"}, "unknown-policy"),
        ({"HUSAI_KEY": ""}, "usage"),
        ({"HUSAI_TIMEOUT": "soon"}, "whole seconds"),
    ],
)
def test_a_refusal_is_no_verdict(lab: Server, shell: Shell, key: str, change: dict[str, str], problem: str) -> None:
    variables = {"HUSAI_URL": lab.url, "HUSAI_KEY": key, "CANDIDATE": NOBODY} | change
    code, out, err = ended(shell(WITH_CURL, **variables))
    assert (code, out, problem in err) == (2, "", True), err


def test_the_command_line_is_refused_alike(lab: Server, shell: Shell, key: str, tmp_path: Path) -> None:
    for variables in ({"HUSAI_KEY": "husai_wrong"}, {"HUSAI_KEY": key}):
        assert ended(shell(ASK_AND_WAIT, HUSAI_URL=lab.url, CANDIDATE=NOBODY, **variables))[0] == 2
        assert (tmp_path / "gate-job").read_text() == ""


def test_a_service_that_stays_away_is_no_verdict(shell: Shell) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    variables = {"HUSAI_URL": url, "HUSAI_KEY": "husai_x", "CANDIDATE": NOBODY, "HUSAI_PATIENCE": "2"}
    began = time.monotonic()
    by_curl, by_cli = shell(WITH_CURL, **variables), shell(ASK_AND_WAIT, **variables)
    code, out, err = ended(by_curl)
    assert (code, out, f"no answer from {url}" in err) == (5, "", True)
    assert time.monotonic() - began >= 1, "it is tried again; the shell's clock counts whole seconds"
    assert ended(by_cli)[0] == 5


def test_a_busy_service_is_asked_again_when_it_says(shell: Shell) -> None:
    problem = {"type": "urn:husai:problem:not-ready", "detail": "later"}
    away, busy = reply(503, problem, Retry_After="2"), reply(429, problem)
    running, lost = (reply(200, JOB | {"state": state, "reason": "infra.lost"}) for state in ("running", "failed"))
    began = time.monotonic()
    with service(away, running, busy, lost) as (url, seen):
        code, _, err = ended(shell(WITH_CURL, HUSAI_URL=url, HUSAI_KEY="husai_x", CANDIDATE=NOBODY))
    assert (code, f"{JOB['id']} has failed: infra.lost" in err) == (5, True), err
    assert time.monotonic() - began >= 4
    assert [request.command for request in seen] == ["POST", "POST", "GET", "GET"]
    assert len({request.headers["Idempotency-Key"] for request in seen[:2]}) == 1
    assert {request.headers["Authorization"] for request in seen} == {"Bearer husai_x"}


@pytest.mark.parametrize(
    ("status", "state", "code"),
    [(503, "", 5), (500, "", 5), (429, "", 2), (200, "blocked", 4), (200, "timed_out", 3), (200, "cancelled", 5)],
)
def test_what_brings_no_verdict_has_its_own_code(shell: Shell, status: int, state: str, code: int) -> None:
    with service(reply(status, JOB | {"state": state}, Retry_After="60")) as (url, seen):
        assert ended(shell(WITH_CURL, HUSAI_URL=url, HUSAI_KEY="husai_x", CANDIDATE=NOBODY))[0] == code
    assert len(seen) == 1, "a pause beyond all patience is not begun"


def test_something_that_is_not_the_service_is_no_verdict(shell: Shell) -> None:
    with service(reply(200, body=b"<html>Sign in</html>")) as (url, _):
        assert ended(shell(WITH_CURL, HUSAI_URL=url, HUSAI_KEY="husai_x", CANDIDATE=NOBODY))[0] == 5
