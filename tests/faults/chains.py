"""Small work for fault tests, what it must give whatever happens, and how to lead a process past a failpoint."""

import os
import re
import shutil
import signal
from typing import Any

from husai_core.assets import HOME
from tests.faults.keeper import Keeper

RECIPE = {"d_sae": 64, "k": 4, "tokens": 40_000, "batch_size": 256}
LONG, ENDLESS = 400_000, 50_000_000
WORLD = {"rows": 2048, "n_features": 48, "d_model": 24}
LAB_ONLY = {"sweep.sent"}
NEED = {
    "block.before_commit": "asset",
    "block.committed": "asset",
    "cancel.before_commit": "cancel",
    "checkpoint.before_commit": "drain",
    "checkpoint.committed": "drain",
    "hand_back.before_commit": "drain",
    "hand_back.committed": "drain",
    "give_up.before_commit": "kill",
    "give_up.committed": "kill",
    "reap.before_commit": "lose",
    "reap.committed": "lose",
    "renew.committed": "long",
    "unblock.before_commit": "asset",
    "unblock.committed": "asset",
}


def chain(service: Keeper, key: str, tokens: int = 40_000) -> dict[str, Any]:
    """Activations, then SAEs: what both made, by digest."""
    rows = submit_rows(service, key)
    saes = submit_saes(service, key, rows, tokens)
    return {job["kind"]: outcome(service.finished(job["id"])) for job in (rows, saes)}


def submit_rows(service: Keeper, key: str) -> dict[str, Any]:
    spec = {"source": "synthetic", "world": WORLD}
    return service.post("/v1/jobs", f"{key}-rows", kind="train.activations", spec=spec, reuse="never")


def submit_saes(service: Keeper, key: str, rows: dict[str, Any], tokens: int) -> dict[str, Any]:
    spec = {"recipe": {**RECIPE, "tokens": tokens}, "seeds": [0, 1]}
    inputs = {"activations": {"job": rows["id"], "output": "activations"}}
    return service.post("/v1/jobs", f"{key}-saes", kind="train.sae", spec=spec, inputs=inputs, reuse="never")


def outcome(job: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on crashes: the state and every artifact but the manifest."""
    outputs = {name: digests for name, digests in job["outputs"].items() if name != "manifest"}
    return {"state": job["state"], "result": job["result"], "outputs": outputs}


def long_run(service: Keeper, key: str, tokens: int = LONG) -> dict[str, Any]:
    """A job that trains for a while and has begun to."""
    rows = submit_rows(service, key)
    service.finished(rows["id"])
    saes = submit_saes(service, key, rows, tokens)
    service.until(lambda: service.job(saes["id"])["progress"])
    return saes


def disturb(service: Keeper, undisturbed: dict[str, Any], key: str, situation: str) -> None:
    """Bring about what leads past a point that an ordinary run never passes."""
    if situation == "asset":
        arrive_late(service, key)
        return
    saes = long_run(service, key, ENDLESS if situation == "cancel" else LONG)
    if situation == "cancel":
        service.until(lambda: service.client.post(f"/v1/jobs/{saes['id']}:cancel").status_code in (202, 409))
        assert service.finished(saes["id"])["state"] == "cancelled"
        return
    if situation == "drain":
        service.holder().send_signal(signal.SIGTERM)
    elif situation == "kill":
        (child,) = service.supervised()
        os.killpg(child, signal.SIGKILL)
    elif situation == "lose":
        service.holder().kill()
    assert outcome(service.finished(saes["id"])) == undisturbed


def arrive_late(service: Keeper, key: str) -> None:
    """A job about a language model that is brought to this host only after the job was blocked."""
    model = re.sub(r"\W", "-", key)
    spec = {"source": "language", "model": f"test/{model}", "max_rows": 512, "context": 32}
    job = service.post("/v1/jobs", key, kind="train.activations", spec=spec)
    service.until(lambda: service.job(job["id"])["state"] == "blocked")
    assert service.job(job["id"])["reason"] == "asset.missing"
    folder = service.models / f"models--test--{model}"
    shutil.copytree(HOME / "classics-2m", folder / "snapshots" / "1")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    finished = service.finished(job["id"])
    assert finished["state"] == "succeeded", finished["detail"]
