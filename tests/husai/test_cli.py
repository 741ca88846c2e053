"""Exit codes and errors of the command line, without a server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from husai.commands.options import outcome
from husai.errors import Exit
from husai.models import Job
from husai.terminal import Terminal, number, printable, size
from husai_core.release import bundle as bundles
from husai_core.release import policy as policies
from husai_core.release.decide import decide
from tests.husai.conftest import Husai
from tests.husai_core.release.make import CANDIDATE, controls, full_evidence

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["jobs"], Exit.SERVICE, "no server runs on"),
        (["nonsense"], Exit.USAGE, "No such command"),
        (["jobs", "--limit", "0"], Exit.USAGE, "--limit"),
        (["submit"], Exit.USAGE, "Missing argument"),
        (["submit", "train.sae", "--set", "k"], Exit.USAGE, "expected NAME=VALUE"),
        (["submit", "train.sae", "-f", "absent.yaml"], Exit.USAGE, "cannot read absent.yaml"),
        (["submit", "train.sae", "--input", "x=y"], Exit.USAGE, "--input"),
        (["gate", "wait"], Exit.USAGE, "name either"),
        (["gate", "wait", "a", "--candidate", "b"], Exit.USAGE, "name either"),
        (["import", "absent.pt"], Exit.USAGE, "there is no file"),
        (["import", "saelens:a/b", "absent.pt"], Exit.USAGE, "commands of their own"),
        (["verify", "absent.json"], Exit.USAGE, "cannot read"),
        (["rerun", "a", "--timeout", "5"], Exit.USAGE, "--check"),
        (["submit", "train.sae", "--timeout", "5"], Exit.USAGE, "--wait"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(run: Husai, words: list[str], code: Exit, error: str) -> None:
    done = run(*words)
    assert done.code == code
    assert done.err.startswith("husai: ")
    assert error in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "slug"), [(["jobs", "--json"], "unavailable"), (["jobs", "--json", "--wrong"], "usage")]
)
def test_errors_are_problem_objects_for_machines(run: Husai, words: list[str], slug: str) -> None:
    assert run(*words).json["type"] == f"urn:husai:problem:{slug}"


def test_an_address_needs_a_key(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUSAI_URL", "http://127.0.0.1:1")
    assert "HUSAI_KEY is not" in run("jobs").err
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    monkeypatch.setenv("HUSAI_PATIENCE", "0")
    done = run("jobs")
    assert (done.code, "no answer from http://127.0.0.1:1" in done.err) == (Exit.SERVICE, True)
    monkeypatch.setenv("HUSAI_URL", "ftp://127.0.0.1")
    assert run("jobs").code == Exit.USAGE


@pytest.mark.parametrize(
    ("text", "code"),
    [("{}", Exit.MISMATCH), ('{"format": "husai-bundle/1"}', Exit.MISMATCH), ("[]", Exit.USAGE), ("{", 2)],
)
def test_what_is_no_bundle_does_not_verify(run: Husai, tmp_path: Path, text: str, code: int) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_text(text)
    done = run("verify", bundle)
    assert done.code == code
    assert "Traceback" not in done.err + done.out


def test_a_policy_that_calls_itself_strict_is_named(run: Husai, tmp_path: Path) -> None:
    policy = policies.load("strict")
    lenient = policy.model_copy(update={"rules": policy.rules[:1]})
    labs = policy.model_copy(update={"name": "ours"})
    said_of = (
        (policy, "as it comes with husai"),
        (lenient, "is not the packaged strict"),
        (labs, "does not come with husai: read its rules in the bundle"),
    )
    for chosen, text in said_of:
        evidence = full_evidence(chosen)
        as_of = "2026-11-28T12:00:00Z"
        decision = decide(chosen, CANDIDATE, evidence, controls(), as_of).model_dump(mode="json")
        folder = tmp_path / text.replace(" ", "-").replace(":", "")
        folder.mkdir()
        bundles.write(folder, chosen, evidence, controls(), decision)
        sealed = bundles.seal(folder, Ed25519PrivateKey.generate(), bundles.Chain(seq=1))
        (tmp_path / "bundle.json").write_text(sealed.model_dump_json())
        done = run("verify", "bundle.json")
        said = " ".join(done.out.split())
        assert done.code == Exit.OK, done.out
        assert said.startswith("matches its own figures, signer unknown: ")
        assert f"policy '{chosen.name}' {text}" in said


def test_a_file_without_a_key_is_refused(run: Husai, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    (tmp_path / "key.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    done = run("verify", "bundle.json", "--public-key", "key.pem")
    assert (done.code, "no Ed25519 public key" in done.err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("state", "code"),
    [("succeeded", 0), ("failed", 5), ("cancelled", 5), ("timed_out", 3), ("blocked", 4)],
)
def test_a_jobs_end_is_an_exit_code(state: str, code: int) -> None:
    assert outcome(Job.read({"id": "1", "kind": "k", "state": state, "version": 1, "spec": {}})) == code


def test_tables_have_no_control_codes_and_texts_cannot_steer(capfd: pytest.CaptureFixture[str]) -> None:
    Terminal().table(["state", "name"], [("failed", "[red]x[/red] \x1b[31mevil\x1b]0;t\x07"), ("pass", ":smile:")])
    text = capfd.readouterr().out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text
    assert ":smile:" in text


def test_figures_are_short() -> None:
    assert [number(value) for value in (0.123456, 3, None, True, "word")] == ["0.1235", "3", "unknown", "yes", "word"]
    assert [size(value) for value in (None, 10, 2048, 3 << 30)] == ["", "10 B", "2.0 KiB", "3.0 GiB"]
    assert printable("a\x1bb\n") == "a�b "


def test_version_loads_nothing_heavy() -> None:
    script = (
        "import sys, husai.cli; code = husai.cli.run(['version', '--json']);"
        "print(sorted({'httpx', 'torch', 'rich.table', 'numpy', 'yaml'} & set(sys.modules)), code)"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[] 0"


def test_verify_needs_no_torch_and_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    script = f"""
import sys, husai.cli
husai.cli.run(['verify', {str(tmp_path / "b.json")!r}])
print('torch' in sys.modules, 'scipy' in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False False"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "husai.cli", "version"]
    process = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    "body",
    ["t.line('x')", "[t.line('x' * 99) for _ in range(9999)]", "t.table(['a'], [['x']] * 9999)", "t.note('x')"],
)
def test_a_broken_pipe_has_its_own_code(body: str) -> None:
    """Whether the last flush, a write or rich notices it, on stdout or stderr."""
    script = f"""
import typer
from husai import cli, terminal
t = terminal.Terminal()
cli.app = typer.Typer()
@cli.app.command()
def one():
    {body}
cli.main(["--"])
"""
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.PIPE, "stderr": write} if "note" in body else {"stdout": write, "stderr": -1}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, **streams)
    os.close(write)
    assert done.returncode == Exit.PIPE, done
    assert not done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    "words",
    [["submit", "train.activations", "--set", 'seed=!!int ""'], ["watch", "a\udcff"], ["jobs", "--label", "\udcff"]],
)
def test_words_that_are_no_values_are_one_line(run: Husai, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("HUSAI_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HUSAI_KEY", "husai_x")
    done = run(*words, "--json")
    assert done.code == Exit.USAGE
    assert done.err.count("\n") == 1
    assert done.json["title"] == "Wrong usage"


def test_help_shows_where_an_input_comes_from_without_pictures(run: Husai, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert "SHA256 or job:JOB:OUTPUT[:INDEX]" in run("submit", "--help").out


def test_json_errors_parse_even_for_usage_of_a_group(run: Husai) -> None:
    assert json.loads(run("gate", "decide", "--json").out)["title"] == "Wrong usage"
