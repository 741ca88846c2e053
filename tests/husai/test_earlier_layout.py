"""Checkpoints in the earlier system's layout come in, become candidates, and get a decision."""

from pathlib import Path

import torch

from husai.errors import Exit
from husai_core.models import modular
from tests.husai.conftest import Husai
from tests.husai_core.kinds.test_data_import import CFG, earlier_sae


def test_an_earlier_sae_becomes_a_candidate_and_is_judged(husai: Husai, tmp_path: Path) -> None:
    torch.save(earlier_sae(), tmp_path / "sae_final.pt")
    done = husai("import", tmp_path / "sae_final.pt", "--hook-name", "blocks.1.hook_resid_post", "--json")
    assert done.code == Exit.OK, done.err
    (candidate,) = [item["sha256"] for item in done.json["candidates"]]
    job = husai("gate", "decide", candidate, "--json").json["id"]
    decided = husai("gate", "wait", job, "--json")
    assert (decided.code, decided.json["verdict"]) == (Exit.INCONCLUSIVE, "inconclusive")
    assert {rule["verdict"] for rule in decided.json["rules"]} == {"inconclusive"}
    assert decided.json["candidate"] == candidate


def test_an_earlier_transformer_is_imported_with_its_leak(husai: Husai, tmp_path: Path) -> None:
    content = {"model_state_dict": modular.build(CFG, 3).state_dict(), "config": CFG, "epoch": 3, "metrics": {}}
    torch.save(content, tmp_path / "transformer_best.pt")
    done = husai("import", tmp_path / "transformer_best.pt", "--json")
    assert done.code == Exit.OK, done.err
    assert len(done.json["job"]["outputs"]["transformer"]) == 1


def test_a_pickle_is_refused_and_never_run(husai: Husai, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "run"),)

    torch.save({"sae_state_dict": Evil()}, tmp_path / "sae.pt")
    done = husai("import", tmp_path / "sae.pt")
    assert done.code == Exit.SERVICE
    assert len(done.err.strip().splitlines()) >= 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()
