"""What is known about inputs already shows that a job would fail: it is refused at submission."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.artifacts import Stored
from tests.api.serving import Server, slug
from tests.api.test_artifacts import upload

RECIPE = {"architecture": "topk", "d_sae": 16, "k": 2}
NETWORK = {"n_layers": 1, "d_model": 8, "d_mlp": 16, "normalization_type": None, "dataset": {"p": 13}}
HOOK = "blocks.0.hook_resid_post"
Submit = Callable[..., dict[str, Any]]


def sae(k: int = 2, **provenance: Any) -> dict[str, Any]:
    """The `cfg.json` of an imported SAE."""
    shape = {"architecture": "topk", "d_in": 8, "d_sae": 16, "k": k, "apply_b_dec_to_input": True}
    return shape | {"husai": {"imported": True, "hook_name": HOOK, "position": "answer", **provenance}}


def artifacts(server: Server, job: dict[str, Any], type: Any, cfgs: list[dict[str, Any]], home: Path) -> list[str]:
    """Finish a job as a worker would, with one artifact for each `cfg.json`."""
    stored = list[Stored]()
    for place, cfg in enumerate(cfgs):
        folder = home / f"{job['id']}-{place}"
        folder.mkdir()
        files = {"cfg.json": json.dumps(cfg).encode(), "weights": f"{job['id']} {place}".encode()}
        stored.append(server.stored(type, files, folder))
    claim = server.claim(job["id"])
    server.finish(claim, {}, {{"sae": "saes"}.get(type, type): stored})
    return [artifact.sha256 for artifact in stored]


@pytest.fixture
def network(server: Server, submit: Submit, tmp_path: Path) -> str:
    """The digest of a network for addition."""
    (digest,) = artifacts(server, submit(), "transformer", [NETWORK], tmp_path)
    return digest


@pytest.fixture
def imported(server: Server, ada: httpx.Client, submit: Submit, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Two imported SAEs, as the output of a job that has succeeded."""

    def make(*cfgs: dict[str, Any]) -> dict[str, Any]:
        sent = upload(ada, json.dumps(cfgs).encode()).json()
        job = submit(kind="data.import", spec={}, inputs={"file": [sent["sha256"]]}, reuse="never")
        artifacts(server, job, "sae", list(cfgs), tmp_path)
        return {"job": job["id"], "output": "saes"}

    return make


def refused(client: httpx.Client, kind: str, spec: dict[str, Any], inputs: dict[str, Any]) -> str:
    """Why a job is refused, by a submission and by its plan alike."""
    body = {"kind": kind, "spec": spec, "inputs": inputs}
    answers = [client.post(f"/v1/jobs{query}", json=body) for query in ("", "?dry_run=true")]
    assert [slug(answer) for answer in answers] == [(422, "unfit-input")] * 2, answers[0].text
    first, second = (str(answer.json()["detail"]) for answer in answers)
    assert first == second
    return first


def test_a_misspelt_hook_of_the_built_in_model_is_refused_with_the_nearest(ada: httpx.Client) -> None:
    spec = {"source": "language", "model": "classics-2m", "hook_name": "blocks.2.hook_resid_pots"}
    detail = refused(ada, "train.activations", spec, {})
    assert "no hook 'blocks.2.hook_resid_pots'; the nearest are blocks.2.hook_resid_post" in detail
    right = ada.post("/v1/jobs", json={"kind": "train.activations", "spec": spec | {"hook_name": HOOK}})
    assert right.status_code == 202


def test_a_misspelt_hook_of_a_network_for_addition_is_refused_with_the_nearest(
    ada: httpx.Client, network: str, submit: Submit
) -> None:
    detail = refused(
        ada, "train.activations", {"hook_names": [HOOK, "blocks.0.mlp.hook_pots"]}, {"transformer": network}
    )
    assert "no hook 'blocks.0.mlp.hook_pots'; the nearest are blocks.0.mlp.hook_post" in detail
    submit(kind="train.activations", spec={"hook_name": "blocks.0.mlp.hook_post"}, inputs={"transformer": network})
    unfinished = {"job": submit()["id"], "output": "transformer"}
    assert "no hook" in refused(ada, "train.activations", {"hook_name": "blocks.1.hook_z"}, {"transformer": unfinished})
    text = {"job": submit(spec={"dataset": "text"})["id"], "output": "transformer"}
    spec = {"source": "language", "hook_name": "blocks.0.attn.hook_zz"}
    assert "blocks.0.attn.hook_z" in refused(ada, "train.activations", spec, {"transformer": text})


def test_a_misspelt_hook_of_a_job_that_a_study_plans_is_refused_before_anything_runs(ada: httpx.Client) -> None:
    detail = refused(ada, "study.pipeline", {"activations": {"hook_name": "blocks.0.hook_resid_pots"}}, {})
    assert "study.pipeline: activations: the network has no hook 'blocks.0.hook_resid_pots'; the nearest are" in detail


@pytest.mark.parametrize(
    ("cfg", "spec", "message"),
    [
        (sae(), {}, "set recipe to what is known of it"),
        (sae(), {"recipe": RECIPE | {"k": 3}}, "a recipe with k 3 does not make the SAEs, whose k is 2; mend recipe"),
        (sae(hook_name=None), {"recipe": RECIPE}, "`husai import FILE --hook-name HOOK"),
        (sae(hook_name="blocks.0.hook_resid_pots"), {"recipe": RECIPE}, "nearest are blocks.0.hook_resid_post"),
        (sae(hook_name="blocks.0.mlp.hook_post"), {"recipe": RECIPE}, "rows of width 8, but these have width 16"),
    ],
)
def test_a_stress_of_imported_saes_that_cannot_work_is_refused(
    ada: httpx.Client, network: str, imported: Submit, cfg: dict[str, Any], spec: dict[str, Any], message: str
) -> None:
    detail = refused(ada, "stress.ood", spec, {"saes": imported(cfg, cfg), "transformer": network})
    assert message in detail


def test_one_that_can_work_is_taken(ada: httpx.Client, network: str, imported: Submit) -> None:
    inputs = {"saes": imported(sae(), sae()), "transformer": network}
    answer = ada.post("/v1/jobs", json={"kind": "stress.ood", "spec": {"recipe": RECIPE}, "inputs": inputs})
    assert answer.status_code == 202, answer.text


def test_nothing_is_told_about_artifacts_of_others(server: Server, network: str, imported: Submit) -> None:
    eve = server.client(server.make_key("eve", ["read", "submit"]))
    answer = eve.post(
        "/v1/jobs", json={"kind": "stress.ood", "inputs": {"saes": imported(sae(), sae()), "transformer": network}}
    )
    assert slug(answer) == (404, "unknown-job")
