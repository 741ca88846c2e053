"""`husai check` from files and digests to a verdict, against the real service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from husai.connect import connect
from husai.errors import Exit
from husai.local_server import Server
from husai_core import assets
from tests.husai.conftest import Husai

RECIPE = {"architecture": "topk", "d_sae": 128, "k": 8, "tokens": 20_000, "batch_size": 256, "lr": 5e-3}
HOOK = "blocks.1.hook_resid_post"
READ = {"source": "language", "model": "classics-2m", "hook_name": HOOK, "context": 32, "max_rows": 2000}
SMALL = ["--tokens", "2000", "--set", "context=32", "--set", "max_sequences=40", "--set", "intervention_latents=2"]


class Files(NamedTuple):
    """Folders of sibling SAEs as another library's user would have them, and texts."""

    saes: list[Path]
    texts: list[Path]
    digests: list[str]


@pytest.fixture(scope="module")
def files(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Files:
    home = tmp_path_factory.mktemp("files")
    novel = (assets.HELD_OUT / "lady-susan.md").read_text()
    texts = [home / "a.txt", home / "b.txt"]
    for path, start in zip(texts, (0, 12_000), strict=True):
        path.write_text(novel[start : start + 12_000])
    with connect(server.home) as service:
        text = service.upload_files({path.name: path for path in texts}).sha256
        rows = service.submit("train.activations", READ, inputs={"text": [text]})
        inputs = {"activations": {"job": rows.id, "output": "activations"}}
        ended = service.wait(service.submit("train.sae", {"recipe": RECIPE, "seeds": [0, 1, 2]}, inputs=inputs).id, 200)
        assert ended.state == "succeeded", ended.why
        digests = ended.outputs["saes"]
        for seed, digest in enumerate(digests):
            service.fetch(digest, home / f"seed{seed}")
    return Files([home / f"seed{seed}" for seed in range(3)], texts, list(digests))


def silent(sae: Path, folder: Path) -> Path:
    """The same SAE in a folder that says nothing of its training."""
    cfg = json.loads((sae / "cfg.json").read_bytes())
    del cfg["husai"]
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps(cfg))
    (folder / "sae_weights.safetensors").write_bytes((sae / "sae_weights.safetensors").read_bytes())
    return folder


def test_a_single_sae_without_a_recipe_ends_inconclusive_and_says_what_it_lacks(
    husai: Husai, files: Files, tmp_path: Path
) -> None:
    shell_expanded = ["--text", *files.texts]
    words = ["check", silent(files.saes[0], tmp_path / "silent"), "--model", "classics-2m", *shell_expanded, *SMALL]
    done = husai(*words, "--report", tmp_path / "report.html")
    assert done.code == Exit.INCONCLUSIVE, done.err
    text = " ".join(done.out.split())
    assert "What could not be measured" in text
    assert "this is one SAE without its siblings. It would take siblings" in text
    assert "husai check --recipe FILE" in text
    ending = text[text.rindex("What could not be measured") :]
    assert "inconclusive: policy own" in ending
    assert "/jobs/" in ending
    assert "husai open" in ending
    assert "<html" in (tmp_path / "report.html").read_text()
    again = husai(*words, "--json")
    assert (again.code, again.json["kind"], again.json["state"]) == (Exit.INCONCLUSIVE, "study.check", "succeeded")
    shown = " ".join(husai("gate", "show", again.json["id"]).out.split())
    assert "is one SAE without its siblings. It would take siblings" in shown
    assert "run stress." not in shown, "what cannot be run is no advice"


def test_a_single_sae_with_a_recipe_is_judged_beside_retrained_siblings(
    husai: Husai, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    sae = silent(files.saes[0], tmp_path / "silent")
    words = ["check", sae, "--model", "classics-2m", "--recipe", tmp_path / "recipe.yaml", *SMALL]
    done = husai(*words, "--text", *files.texts)
    assert done.code in {Exit.FAIL, Exit.INCONCLUSIVE}, done.err
    text = " ".join(done.out.split())
    assert "4 SAEs were retrained here by the claimed recipe" in text
    assert "The claimed recipe, checked" in text
    assert "stress.intervention: SAEs of several seeds are compared" in text, "it takes no retrained siblings"


def test_siblings_with_a_recipe_are_stressed(husai: Husai, files: Files, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    words = ["check", *files.saes, "--model", "classics-2m", "--recipe", tmp_path / "recipe.yaml", *SMALL]
    done = husai(*words, "--text", files.texts[0], "--text", files.texts[1])
    assert done.code in {Exit.FAIL, Exit.INCONCLUSIVE}, done.err
    text = " ".join(done.out.split())
    assert "Why measured rules are not met" in text
    assert "provenance claimed" in text
    assert "3 SAEs were retrained here by the claimed recipe" in text
    assert "What could not be measured" not in text
    assert text.count("policy own, candidate") == 1


def test_saes_that_exist_are_checked_on_what_they_were_trained_on(husai: Husai, files: Files) -> None:
    done = husai("check", *files.digests, *SMALL, "--json")
    assert done.code in {Exit.FAIL, Exit.INCONCLUSIVE}, done.err
    assert done.json["spec"]["model"] == "classics-2m"
    assert done.json["inputs"].keys() == {"saes", "activations", "text"}
    shown = husai("show", done.json["id"]).out
    assert "stability: succeeded" in shown
    assert "untrained: succeeded" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which network the SAEs read"),
        (["--model", "./none"], "there is no folder ./none"),
        (["--model", "clasics-2m"], "there is no built-in model 'clasics-2m'; did you mean classics-2m?"),
        (["--model", "classics-2m", "--policy", "ownn"], "did you mean own"),
        (["--model", "classics-2m", "--set", "recipe.kk=3"], "did you mean k"),
        (["--model", "classics-2m", "--hook-name", "blocks.9.hook_resid_post"], "blocks.9"),
        (["f" * 64], "name all SAEs by files, or all by their SHA-256"),
    ],
)
def test_what_cannot_be_checked_is_said_in_words(husai: Husai, files: Files, words: list[str], message: str) -> None:
    done = husai("check", *files.saes, *words)
    assert (done.code, message in done.err) == (Exit.USAGE, True), done.err
    assert "Traceback" not in done.err
    assert ("uploaded as" in done.err) == ("blocks.9" in message or not words), "fields are read before files are sent"


def test_a_model_that_is_not_here_ends_the_check_and_says_how_to_get_it(husai: Husai, files: Files) -> None:
    done = husai("check", files.saes[0], "--model", "nobody/absent", *SMALL)
    assert done.code == Exit.INCONCLUSIVE, done.err
    text = " ".join(done.out.split())
    assert "waiting (child.blocked): core, features are blocked: the model nobody/absent is not whole" in text
    assert text.count("hf download nobody/absent") == 1


def test_a_text_alone_is_no_sae(run: Husai, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("words")
    done = run("check", "text.txt", "--model", "classics-2m")
    assert (done.code, done.err) == (Exit.USAGE, "husai: text.txt is a text; name at least one SAE\n")


def test_files_that_are_no_saes_end_the_check(husai: Husai, tmp_path: Path) -> None:
    (tmp_path / "junk.bin").write_bytes(b"junk")
    done = husai("check", tmp_path / "junk.bin", "--model", "classics-2m")
    assert (done.code, "is of no known layout" in " ".join((done.out + done.err).split())) == (Exit.SERVICE, True)
    assert husai("check", tmp_path / "none").code == Exit.USAGE


def test_without_a_server_one_runs_for_the_time_of_the_command(run: Husai, tmp_path: Path) -> None:
    (tmp_path / "junk.bin").write_bytes(b"junk")
    done = run("check", tmp_path / "junk.bin", "--model", "classics-2m")
    assert (done.code, "is of no known layout" in " ".join((done.out + done.err).split())) == (Exit.SERVICE, True)
    assert f"starting a server on {tmp_path / 'home'}" in done.err
    assert run("jobs").code == Exit.SERVICE, "it has stopped"


def test_a_text_that_is_too_short_to_measure_on_is_refused_and_nothing_is_signed(
    husai: Husai, files: Files, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("a word")
    before = husai("audit", "--json").out
    done = husai("check", files.saes[0], "--model", "classics-2m", "--text", tmp_path / "short.txt", *SMALL)
    assert done.code == Exit.USAGE, done.err
    assert "nothing could be measured, so no policy was asked: core: only" in " ".join(done.out.split())
    assert husai("audit", "--json").out == before
