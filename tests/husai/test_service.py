"""The client and the command line against a real API and worker."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from husai.client import Husai as Client
from husai.connect import connect
from husai.errors import Exit, Refused
from husai.local_server import Server
from husai.spec_args import assign, bindings
from tests.husai.conftest import ACTIVATIONS, RECIPE, Husai, heed_ctrl_c

SPEC = [
    "--set",
    "source=synthetic",
    "--set",
    "world.rows=512",
    "--set",
    "world.n_features=8",
    "--set",
    "world.d_model=8",
]


def test_submit_waits_shows_and_reuses(husai: Husai) -> None:
    words = ["submit", "train.activations", *SPEC, "--set", "seed=5", "--label", "mine", "--wait", "--json"]
    first = husai(*words)
    assert first.code == Exit.OK, first.err
    assert first.json["state"] == "succeeded"
    assert first.json["spec"]["world"]["rows"] == 512
    assert first.json["labels"] == ["mine"]
    second = husai(*words)
    assert second.json["reused_from"] == first.json["id"]
    assert second.json["outputs"] == first.json["outputs"]
    never = husai(*words, "--reuse", "never")
    assert never.json["reused_from"] is None
    mine = ["jobs", "--label", "mine", "--kind", "train.activations"]
    listed = husai(*mine, "--json").json["items"]
    assert [job["id"] for job in listed] == [never.json["id"], second.json["id"], first.json["id"]]
    newest = husai(*mine, "--limit", "2", "--json").json
    rest = husai(*mine, "--cursor", newest["next"], "--json").json
    assert ([*newest["items"], *rest["items"]], rest["next"]) == (listed, None)
    assert "There are more than these 2" in husai(*mine, "--limit", "2").out
    assert first.json["id"][:8] in husai("jobs", "--limit", "50").out


def test_one_key_is_one_job(husai: Husai) -> None:
    words = ["submit", "train.activations", *SPEC, "--key", "once", "--json"]
    assert husai(*words).json["id"] == husai(*words).json["id"]
    other = husai(*words, "--set", "seed=9")
    assert (other.code, other.json["type"]) == (Exit.USAGE, "urn:husai:problem:idempotency-mismatch")


def test_a_plan_runs_nothing(husai: Husai) -> None:
    def known() -> set[str]:
        return {job["id"] for job in husai("jobs", "--limit", "200", "--json").json["items"]}

    before = known()
    plan = husai("submit", "train.activations", *SPEC, "--set", "seed=77", "--plan", "--json")
    assert plan.json["cells"][0]["kind"] == "train.activations"
    assert "train.activations" in husai("submit", "train.activations", *SPEC, "--plan").out
    assert known() == before


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (["submit", "train.nothing"], "unknown-kind"),
        (["submit", "train.activations", "--set", "source=synthetic", "--set", "world.rows=-1"], "invalid-spec"),
        (["submit", "train.activations", "--set", "nonsense=1"], "invalid-spec"),
        (["submit", "train.sae", "--set", "recipe.k=2"], "missing-input"),
        (["watch", "0" * 24], "unknown-job"),
        (["cancel", "not-an-id"], "unknown-job"),
        (["artifacts", "0" * 64], "unknown-artifact"),
        (["gate", "show", "0" * 24], "unknown-decision"),
        (["gate", "decide", "0" * 64], "unknown-candidate"),
    ],
)
def test_refusals_are_usage_errors_with_their_slug(husai: Husai, words: list[str], slug: str) -> None:
    done = husai(*words, "--json")
    assert (done.code, done.json["type"]) == (Exit.USAGE, f"urn:husai:problem:{slug}")
    assert done.err.splitlines()[-1].startswith("husai: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["gate", "decide", "zz"], ["jobs", "--parent", "zz"], ["jobs", "--label", "ä b"]])
def test_what_an_id_looks_like_is_said_in_words(husai: Husai, words: list[str]) -> None:
    done = husai(*words)
    assert (done.code, " is " in done.err, "^" in done.err) == (Exit.USAGE, True, False)


def test_a_wrong_key_is_refused(husai: Husai, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_URL", server.url)
    monkeypatch.setenv("HUSAI_KEY", "husai_wrong")
    done = husai("jobs", "--json")
    assert (done.code, done.json["status"]) == (Exit.USAGE, 401)


def test_watch_logs_and_events_tell_one_story(husai: Husai, server: Server, trained: dict[str, str]) -> None:
    watched = husai("watch", trained["sae"])
    assert watched.code == Exit.OK
    assert "succeeded" in watched.out
    text = husai("logs", trained["sae"])
    assert text.code == Exit.OK
    assert husai("logs", trained["sae"], "-f").out == text.out
    with connect(server.home) as service:
        events = list(service.events(trained["sae"]))
        assert events[-1].data["state"] == "succeeded"
        assert [event.id for event in events] == sorted({event.id for event in events})
        half = events[len(events) // 2].id
        assert list(service.events(trained["sae"], after=half)) == [event for event in events if event.id > half]
        stored = service.recent(trained["sae"], after=half, limit=1000)
        assert [(e.id, e.type, e.data) for e in stored] == [(e.id, e.type, e.data) for e in events if e.id > half]


def test_cancel_and_retry(husai: Husai, server: Server, trained: dict[str, str]) -> None:
    source = f"activations=job:{trained['activations']}:activations"
    spec = ["--set", "recipe=" + json.dumps(RECIPE | {"tokens": 50_000_000}), "--input", source]
    job = husai("submit", "train.sae", *spec, "--json").json["id"]
    assert husai("cancel", job).code == Exit.OK
    assert husai("watch", job, "--json").code == Exit.SERVICE, "1 is the verdict fail"
    again = husai("cancel", job, "--json")
    assert (again.code, again.json["type"]) == (Exit.USAGE, "urn:husai:problem:already-final")
    retried = husai("retry", job, "--json").json
    assert retried["retry_of"] == job
    assert husai("submit", "train.sae", *spec, "--wait", "--timeout", "0").code == Exit.TIMEOUT
    waiting = husai("submit", "train.sae", *spec, "--device", "cuda", "--json")
    assert waiting.json["device"] == "cuda"
    with connect(server.home) as service:
        has_cuda = any(worker.device == "cuda" for worker in service.workers())
    assert ("no worker here has a cuda device" in waiting.err) == (not has_cuda)
    for item in husai("jobs", "--json").json["items"]:
        if item["state"] in {"queued", "running", "waiting"}:
            husai("cancel", item["id"])


def test_export_writes_plain_files_that_have_their_digests(
    husai: Husai, tmp_path: Path, trained: dict[str, str]
) -> None:
    done = husai("export", trained["sae"], tmp_path / "out", "--json")
    names = set(done.json["files"])
    assert {"manifest.json", "result.json", "saes/0/cfg.json", "saes/1/sae_weights.safetensors"} <= names
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    index = husai("artifacts", manifest["outputs"]["saes"][0], "--json").json["files"]
    for name, entry in index.items():
        assert hashlib.sha256((tmp_path / "out" / "saes" / "0" / name).read_bytes()).hexdigest() == entry["sha256"]
    assert husai("export", trained["sae"], tmp_path / "out").code == Exit.USAGE
    names = husai("export", manifest["outputs"]["saes"][0], tmp_path / "single", "--json").json["files"]
    assert {name: (tmp_path / "single" / name).read_bytes() for name in names} == {
        name: (tmp_path / "out" / "saes" / "0" / name).read_bytes() for name in index
    }


def test_first_digits_stand_for_jobs_artifacts_and_candidates(
    husai: Husai, tmp_path: Path, trained: dict[str, str]
) -> None:
    job, digest = trained["sae"], trained["candidate"]
    assert husai("show", job[:20]).out == husai("show", job).out
    assert husai("artifacts", digest[:12]).out == husai("artifacts", digest).out
    assert husai("export", digest[:12], tmp_path / "sae", "--json").json["files"]
    assert husai("export", job[:20], tmp_path / "job", "--json").json["files"]
    plan = husai(
        "submit",
        "train.sae",
        "--plan",
        "--json",
        "--input",
        f"activations=job:{trained['activations'][:20]}:activations",
    )
    assert plan.code == Exit.OK, plan.err
    assert digest[:12] in husai("candidates").out
    unknown = husai("export", "0" * 12, tmp_path / "none")
    assert (unknown.code, unknown.err.count("\n")) == (Exit.USAGE, 1)


def test_a_home_folder_is_not_sent(husai: Husai, server: Server) -> None:
    for folder in (server.home, server.home.parent):
        refused = husai("upload", folder)
        assert refused.code == Exit.USAGE
        assert "holds its keys" in refused.err


def test_import_makes_a_candidate_of_an_export(husai: Husai, tmp_path: Path, trained: dict[str, str]) -> None:
    husai("export", trained["sae"], tmp_path / "out")
    done = husai("import", tmp_path / "out" / "saes" / "0", "--json")
    assert done.code == Exit.OK, done.err
    assert done.json["candidates"], done.json["job"]
    assert done.json["candidates"][0]["sha256"] in done.json["job"]["outputs"]["saes"]
    both = husai("import", tmp_path / "out", "--json").json["job"]
    assert [item["source"] for item in both["result"]["items"]] == [
        f"saes/{place}/sae_weights.safetensors" for place in (0, 1)
    ]
    assert both["outputs"]["saes"][0] == done.json["candidates"][0]["sha256"]
    text = husai("import", tmp_path / "out" / "saes" / "1").out
    assert "The gate can judge 1 of these." in text
    (tmp_path / "junk.bin").write_bytes(b"junk")
    junk = husai("import", tmp_path / "junk.bin")
    assert junk.code == Exit.SERVICE
    assert " ".join((junk.err + junk.out).split()).count("is of no known layout") == 1
    assert "The gate can judge" not in junk.out
    assert "is of no known layout" in " ".join(husai("log", "--limit", "1").out.split())
    refused = husai("import", tmp_path / "junk.bin", "--format", "none")
    assert (refused.code, "sending" in refused.err) == (Exit.USAGE, False)


def test_inputs_that_cannot_be_are_refused_at_once(husai: Husai, trained: dict[str, str]) -> None:
    done = husai("submit", "train.sae", "--input", f"activations=job:{trained['activations']}:activations:7")
    assert (done.code, "has one artifact, number 0; 7 is beyond." in done.err) == (Exit.USAGE, True)
    wrong = husai("submit", "train.sae", "--input", f"activations=job:{trained['sae']}:saes")
    assert (wrong.code, wrong.err) == (
        Exit.USAGE,
        "husai: Input 'activations' takes activations; saes of train.sae is sae.\n",
    )


def test_a_finished_job_shows_its_panels_and_digests(husai: Husai, trained: dict[str, str], tmp_path: Path) -> None:
    shown = husai("watch", trained["sae"]).out
    assert trained["candidate"][:12] in shown
    panels = husai("show", trained["sae"], "--json").json["panels"]
    titles = [panel["title"] for panel in panels if panel.get("title") and not panel.get("folded")]
    assert titles
    assert all(title in " ".join(shown.split()) for title in titles)
    assert husai("show", trained["sae"], "--csv", tmp_path / "csv").out.count(".csv") == len(panels)
    tables = [path.read_text() for path in sorted((tmp_path / "csv").iterdir())]
    assert all("," in text or "\n" in text for text in tables)
    assert "# " in husai("show", trained["sae"], "--csv", "-").out


@pytest.mark.parametrize("job", ["sae", "activations"])
def test_every_kind_has_a_report(husai: Husai, trained: dict[str, str], tmp_path: Path, job: str) -> None:
    done = husai("report", trained[job], "-o", tmp_path / "report.html")
    assert done.code == Exit.OK, done.err
    assert "<html" in (tmp_path / "report.html").read_text()


def test_jobs_fold_away_what_studies_asked_for(husai: Husai, server: Server) -> None:
    with connect(server.home) as service:
        study = service.submit("study.pipeline", {"preset": "smoke"}, labels=["folded"])
        children = [child.id for child in service.children(study)]
        assert children
        top = {item["id"] for item in husai("jobs", "--json", "--limit", "200").json["items"]}
        every = {item["id"] for item in husai("jobs", "--all", "--json", "--limit", "200").json["items"]}
        assert study.id in top
        assert not top & set(children)
        assert set(children) <= every
        shown = {item["id"] for item in husai("jobs", "--parent", study.id, "--json").json["items"]}
        assert shown == set(children)
        logs = husai("logs", study.id)
        assert "wrote no log" in logs.err
        assert "waiting" in logs.err
        assert f"husai logs {children[0][:8]}" in logs.err
        service.cancel(study.id)


def test_an_upload_is_named_by_its_digest(husai: Husai, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "b.md").write_text("More text.")
    digest = husai("upload", tmp_path / "a.txt", tmp_path / "b.md").out.strip()
    assert set(husai("artifacts", digest, "--json").json["files"]) == {"a.txt", "b.md"}
    assert husai("upload", tmp_path / "none.txt").code == Exit.USAGE
    (tmp_path / "more" / ".hidden").mkdir(parents=True)
    (tmp_path / "more" / ".hidden" / "c.txt").write_text("Not meant.")
    (tmp_path / "more" / "a.txt").write_text("Some more.")
    (tmp_path / "more" / "_é.txt").write_text("Its name is made one that can be sent.")
    (tmp_path / "more" / "loop").symlink_to(tmp_path / "more")
    os.mkfifo(tmp_path / "more" / "pipe")
    digest = husai("upload", tmp_path / "a.txt", tmp_path / "more").out.strip()
    assert set(husai("artifacts", digest, "--json").json["files"]) == {"a.txt", "more/a.txt", "more/file_é.txt"}


def test_kinds_and_artifacts_can_be_looked_through(husai: Husai, trained: dict[str, str]) -> None:
    names = [kind["name"] for kind in husai("kinds", "--json").json["items"]]
    assert {"train.activations", "train.sae", "release.gate"} <= set(names)
    text = husai("kinds", "train.sae").out
    assert "recipe.d_sae" in text
    assert "activations" in text
    rows = husai("artifacts", "--type", "sae", "--json").json["items"]
    assert {row["type"] for row in rows} == {"sae"}
    assert rows[0]["sha256"][:12] in husai("artifacts", "--type", "sae").out
    assert "sae_weights.safetensors" in husai("artifacts", rows[0]["sha256"]).out


def test_the_log_is_a_list_of_commands_that_work(husai: Husai, trained: dict[str, str]) -> None:
    import shlex

    items = {item["job"]: item for item in husai("log", "--json").json["items"]}
    words = shlex.split(items[trained["sae"]]["command"])
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert assign({}, settings)["seeds"] == [0, 1]
    assert bindings(words[i + 1] for i, word in enumerate(words) if word == "--input")["activations"]
    again = husai(*words[1:], "--wait", "--json")
    assert again.json["outputs"] == items[trained["sae"]]["outputs"]
    text = husai("log").out.replace(" \\\n", " ")
    assert items[trained["sae"]]["command"] in " ".join(text.split())


def test_rerun_computes_again_and_compares(husai: Husai, trained: dict[str, str]) -> None:
    done = husai("rerun", trained["sae"], "--check", "--json")
    assert done.code == Exit.OK, done.out + done.err
    assert done.json["equal"]
    rows = {row["output"]: row for row in done.json["rows"]}
    assert set(rows) == {"saes[0]", "saes[1]", "tables", "figures", "result", "manifest"}
    assert rows["saes[0]"]["first"] == rows["saes[0]"]["second"]
    assert rows["manifest"]["first"] != rows["manifest"]["second"]
    assert rows["manifest"]["note"] == "but for run-dependent fields"
    text = husai("rerun", trained["activations"], "--check").out
    assert "4 of 4 are equal" in text


def test_another_seed_is_found_to_be_different(server: Server, trained: dict[str, str]) -> None:
    from husai.compare import compare

    with connect(server.home) as service:
        first = service.job(trained["activations"])
        other = service.wait(service.submit("train.activations", ACTIVATIONS | {"seed": 1}).id, timeout=100)
        comparison = compare(service, first, other)
    rows = {row.output: row for row in comparison.rows}
    assert comparison.exit_code == Exit.FAIL or "digest" in comparison.surroundings
    assert rows["activations"].verdict == rows["result"].verdict == "different"
    assert "activations.safetensors" in rows["activations"].note
    assert "effective_rank" in rows["result"].note


def test_keys_are_made_used_and_revoked(husai: Husai, server: Server) -> None:
    created = husai("keys", "create", "robot", "--scope", "read", "--owner", "robot", "--role", "ci", "--json")
    key = created.json
    assert "robot, a key of robot, may see jobs, results and decisions" in created.err
    with Client(server.url, key["token"]) as robot:
        assert list(robot.jobs()) == []
        with pytest.raises(Refused) as error:
            robot.submit("train.activations", ACTIVATIONS)
        assert (error.value.slug, error.value.exit_code) == ("wrong-scope", Exit.USAGE)
        assert key["id"] in husai("keys", "list").out
        assert husai("keys", "revoke", key["id"]).code == Exit.OK
        with pytest.raises(Refused) as error:
            list(robot.jobs())
    assert error.value.slug == "revoked-key"


def test_a_key_is_not_made_before_somebody_says_what_it_may_do(husai: Husai) -> None:
    before = husai("keys", "list", "--json").json
    refused = husai("keys", "create", "careless")
    assert refused.code == Exit.USAGE
    assert all(scope in refused.err for scope in ("--scope", "read (", "submit (", "gate (", "admin ("))
    assert husai("keys", "list", "--json").json == before


def test_several_files_become_one_artifact(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b").write_bytes(b"")
    with connect(server.home) as service:
        stored = service.upload_files({"a.bin": tmp_path / "a", "b.bin": tmp_path / "b"})
        paths = service.fetch(stored.sha256, tmp_path / "back")
    assert {path.name: path.read_bytes() for path in paths} == {"a.bin": b"a" * 3_000_000, "b.bin": b""}


def test_ctrl_c_is_quiet(server: Server, trained: dict[str, str]) -> None:
    root = Path(__file__).resolve().parents[2]
    with connect(server.home) as service:
        inputs = {"activations": service.job(trained["activations"]).outputs["activations"]}
        job = service.submit("train.sae", {"recipe": RECIPE | {"tokens": 40_000_000}, "seeds": [3]}, inputs=inputs)
        command = [sys.executable, "-m", "husai.cli", "watch", job.id, "--json"]
        env = {**os.environ, "HUSAI_HOME": str(server.home)}
        watch = subprocess.Popen(
            command,
            cwd=root,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed_ctrl_c,
        )
        assert watch.stderr is not None
        assert "train.sae" in watch.stderr.readline()
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=20)
        service.cancel(job.id)
    assert (watch.returncode, out) == (Exit.INTERRUPTED, "")
    assert "Traceback" not in err
    assert f"The job goes on. See it again with `husai watch {job.id}`; stop it with `husai cancel {job.id}`." in err
