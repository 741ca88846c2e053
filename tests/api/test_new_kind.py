"""A job kind is one file: a new one is found by everything that knows kinds, and a study of studies by its scopes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from husai_core.panels import PANELS, to_csv
from tests.api.serving import ROOT, Server, slug, start, stop

ECHO = '''"""Does a kind that is one file work?"""

from pydantic import Field

from husai_core import panels
from husai_core.evidence import BaseResult
from husai_core.kinds.kind import BaseSpec, Kind


class Spec(BaseSpec):
    """What to repeat."""

    times: int = Field(3, ge=1, description="how often")


class Result(BaseResult):
    """What was repeated."""

    echoes: int


def run(spec, inputs, job):
    """Repeat."""
    job.progress(spec.times, spec.times, "echoes")
    return Result(echoes=spec.times + OFFSET)


OFFSET = 0


def present(result):
    """One sentence."""
    return [panels.Headline(title="Echo", text=f"{result.echoes} echoes", tone="good")]


KIND = Kind(spec=Spec, result=Result, run=run, present=present)
'''
CAMPAIGN = '''"""What do several pipelines say together?"""

from husai_core.evidence import BaseResult
from husai_core.kinds.kind import BaseSpec, Child, Kind


class Spec(BaseSpec):
    """Nothing to choose."""


class Result(BaseResult):
    """How many pipelines there were."""

    pipelines: int


def plan(spec, inputs, done):
    """One pipeline."""
    return [Child("first", "study.pipeline", {})]


def summarise(spec, inputs, done, job):
    """Count."""
    return Result(pipelines=len(done))


KIND = Kind(spec=Spec, result=Result, plan=plan, summarise=summarise, children=("study.pipeline",))
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with two more kinds, each in a file of its own."""
    place = tmp_path_factory.mktemp("checkout")
    for package in ("api", "husai", "husai_core", "migrations", "services", "worker"):
        shutil.copytree(ROOT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "husai_core/kinds/benchmark").mkdir(exist_ok=True)
    (place / "husai_core/kinds/benchmark/__init__.py").touch()
    (place / "husai_core/kinds/benchmark/echo.py").write_text(ECHO)
    (place / "husai_core/kinds/study/campaign_of_pipelines.py").write_text(CAMPAIGN)
    return place


@pytest.fixture(scope="module")
def server(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs from the copy."""
    running = start(tmp_path_factory.mktemp("home"), root=checkout, HUSAI_DEVICE="cpu", PYTHONPATH=str(checkout))
    yield running
    stop(running)


def digest(checkout: Path, kind: str) -> str:
    """The code digest of a kind of the copy, in a process of its own."""
    code = f"from husai_core import kinds; print(kinds.code_digest({kind!r}))"
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    run = subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environment, capture_output=True, check=True)
    return run.stdout.decode().strip()


def test_rest_and_openapi_know_a_new_kind(server: Server) -> None:
    document = server.admin.get("/v1/kinds/benchmark.echo").json()
    assert (document["queue"], document["help"]) == ("benchmark", "Does a kind that is one file work?")
    assert document["spec_schema"]["properties"]["times"]["description"] == "how often"
    assert "benchmark.echo" in [kind["name"] for kind in server.admin.get("/v1/kinds").json()["items"]]
    openapi = httpx.get(f"{server.url}/openapi.json").json()
    body = openapi["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "benchmark.echo" in body["discriminator"]["mapping"]
    assert "BenchmarkEchoSpec" in openapi["components"]["schemas"]
    refused = server.admin.post("/v1/jobs", json={"kind": "benchmark.echo", "spec": {"time": 1}})
    assert (slug(refused), refused.json()["errors"][0]["suggestions"]) == ((422, "invalid-spec"), ["times"])


def test_a_new_kind_runs_and_shows_its_panels(server: Server, checkout: Path) -> None:
    job = server.admin.post("/v1/jobs", json={"kind": "benchmark.echo", "spec": {"times": 5}}).json()
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HUSAI_HOME": str(server.home), "HUSAI_DEVICE": "cpu"}
    worker = subprocess.Popen([sys.executable, "-m", "worker"], cwd=checkout, env=environment)
    try:
        for _ in range(6):
            job = server.admin.get(f"/v1/jobs/{job['id']}?wait=20").json()
            if job["state"] in ("succeeded", "failed"):
                break
    finally:
        worker.terminate()
        worker.wait(60)
    assert (job["state"], job["result"]) == ("succeeded", {"echoes": 5})
    shown = server.admin.get(f"/v1/jobs/{job['id']}/panels").json()
    assert shown["title"] == "Does a kind that is one file work?"
    (headline,) = PANELS.validate_python(shown["panels"])
    assert (headline.title, headline.text) == ("Echo", "5 echoes")  # type: ignore[union-attr]
    assert "5 echoes" in to_csv(headline)
    assert "5 echoes" in server.admin.get(f"/v1/jobs/{job['id']}/report").text


def test_the_digest_of_a_new_kind_follows_its_code(checkout: Path) -> None:
    path = checkout / "husai_core/kinds/benchmark/echo.py"
    before = digest(checkout, "benchmark.echo")
    path.write_text(ECHO.replace('"""Repeat."""', '"""Say it again."""  # and again'))
    assert digest(checkout, "benchmark.echo") == before
    path.write_text(ECHO.replace("OFFSET = 0", "OFFSET = 1"))
    assert digest(checkout, "benchmark.echo") != before
    path.write_text(ECHO)


def test_a_study_of_studies_needs_what_its_grandchildren_need(server: Server, checkout: Path) -> None:
    body = {"kind": "study.campaign_of_pipelines"}
    sam = server.client(server.make_key("sam", ["read", "submit"]))
    refused = sam.post("/v1/jobs", json=body)
    assert (slug(refused), refused.json()["required"]) == ((403, "wrong-scope"), "gate")
    ada = server.client(server.make_key("ada", ["read", "submit", "gate"]))
    cells = {cell["name"] for cell in ada.post("/v1/jobs?dry_run=true", json=body).json()["cells"]}
    assert {"first", "first/sae", "first/gate"} <= cells
    assert ada.post("/v1/jobs", json=body).status_code == 202
    path = checkout / "husai_core/kinds/train/sae.py"
    before, text = digest(checkout, "study.campaign_of_pipelines"), path.read_text()
    path.write_text(text + "\n\nMORE = 1\n\n\ndef _more() -> int:\n    return MORE\n")
    assert digest(checkout, "study.campaign_of_pipelines") != before
    path.write_text(text)
