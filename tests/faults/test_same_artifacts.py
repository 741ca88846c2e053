"""The same pipeline in both modes gives the same artifacts, digest for digest."""

import os
from pathlib import Path

import pytest

from husai.client import Husai
from husai.compare import compare
from husai.models import Job
from tests.faults.keeper import Keeper
from tests.faults.lab import Lab
from tests.servers import Given, Postgres

PRESET = os.environ.get("HUSAI_SAME_PRESET", "smoke")
SPEC = {"preset": PRESET, "as_of": "2026-01-31T12:00:00Z"}
TIMED = ("manifest", "decision", "result", "tables")
"""Outputs that hold instants, or digests of others that do; they are compared without them."""


@pytest.mark.timeout(1800)
def test_embedded_and_lab_make_the_same(tmp_path: Path, postgres: Postgres | Given, redis_url: str) -> None:
    urls = {"HUSAI_DATABASE_URL": postgres.create("lab"), "HUSAI_BROKER_URL": redis_url}
    with Keeper(tmp_path / "embedded", HUSAI_WARM="full") as embedded:
        husai, first = run(embedded)
        with Lab(tmp_path / "lab", None, HUSAI_WARM="full", **urls) as lab:
            other, second = run(lab)
            compared = compare(husai, first, second, other)
    assert {row.verdict for row in compared.rows} == {"equal"}, compared.rows
    exact = [row for row in compared.rows if row.output.split("[")[0] not in TIMED]
    assert len(exact) > 10
    assert all(row.first == row.second for row in exact), "equal but for a digest"


def run(service: Keeper) -> tuple[Husai, Job]:
    """The pipeline to its end, and a client that reads what it made."""
    id = service.post("/v1/jobs", kind="study.pipeline", spec=SPEC)["id"]
    job = service.until(lambda: (job := service.job(id, wait=5))["finished_at"] and job, seconds=900)
    assert job["state"] == "succeeded"
    husai = Husai(str(service.client.base_url), (service.folder("api") / "key").read_text().strip())
    return husai, husai.job(id)
