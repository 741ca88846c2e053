"""The service on this machine: `up` runs it, `demo` shows all of it once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from husai import pipeline_summary
from husai.commands.gate import advised, bundle_bytes, gate_of
from husai.commands.options import Home, Json, outcome
from husai.connect import connect, home
from husai.errors import Exit
from husai.local_server import Server, present
from husai.models import Job
from husai.progress import follow
from husai.terminal import Terminal
from husai.verdict import COLUMNS, Judgement

if TYPE_CHECKING:
    from husai.client import Husai

app = typer.Typer()


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [default: 8765, or a free one]")
    ] = None,
    home_: Home = None,
    json: Json = False,
) -> int:
    """Run the service on this machine until it is told to stop."""
    terminal = Terminal(json)
    place = home(home_)
    with _stoppable(), Server(place, host, port) as server:
        if json:
            terminal.document(
                {"url": server.url, "home": str(place), "key_file": str(place / "key"), "pid": os.getpid()}
            )
        terminal.line(f"HUSAI runs at {server.url}")
        terminal.line(f"home {place}, key in {place / 'key'}, logs in {place / 'logs'}; stop with Ctrl-C")
        _flush()
        _serve(server, terminal)
    terminal.note("stopped")
    return Exit.OK


def _serve(server: Server, terminal: Terminal) -> None:
    """Keep the service alive until a signal says stop."""
    try:
        while True:
            for remark in server.tend():
                terminal.note(remark)
            time.sleep(0.2)
    except KeyboardInterrupt:
        terminal.note("stopping; what runs is handed back")


@app.command()
def demo(
    preset: Annotated[Literal["demo", "smoke"], typer.Option(help="demo: the whole; smoke: the smallest.")] = "demo",
    home_: Home = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server until Ctrl-C when the demo is over.")] = False,
    json: Json = False,
) -> int:
    """Train a transformer and SAEs, stress them, and decide about a release; explain every step."""
    terminal = Terminal(json)
    place = home(home_)
    with _stoppable(), _server(place, terminal) as server:

        def tend() -> None:
            for remark in server.tend() if server else []:
                terminal.note(remark)

        with connect(place) as husai:
            job = husai.submit("study.pipeline", {"preset": preset}, labels=["demo"])
            terminal.note(f"job {job.id}: study.pipeline, preset {preset}")
            job = follow(husai, job.id, terminal, tend=tend)
            children = {child.name or child.id: husai.job(child.id) for child in husai.children(job)}
            code = _tell(husai, terminal, job, children, place, home_)
        if keep and server:
            terminal.line(f"The server stays at {server.url}; stop it with Ctrl-C.")
            _flush()
            _serve(server, terminal)
    return code


def _tell(
    husai: Husai, terminal: Terminal, job: Job, children: dict[str, Job], place: Path, named: Path | None
) -> Exit:
    """Print what came out; write the report and the bundle."""
    terminal.line()
    for name, value in pipeline_summary.lines(children):
        terminal.line(f"  {name:<42}{value}")
    gate = gate_of(husai, job)
    judgement = Judgement.of_job(gate) if gate else None
    if judgement:
        _decision(terminal, judgement, advised(husai, judgement))
    if job.state != "succeeded":
        terminal.line(f"The pipeline came to no decision that counts: {job.why}")
        for child in children.values():
            if child.state not in {"succeeded", "cancelled"}:
                terminal.line(f"  {child.name}: {child.why}")
    written = _files(husai, job, gate, place / "reports")
    if terminal.json:
        terminal.document({"job": dict(job.raw), "decision": dict(judgement.raw) if judgement else None, **written})
    _follow_up(terminal, job, written, named)
    return outcome(job)


def _decision(terminal: Terminal, judgement: Judgement, ways: Sequence[str]) -> None:
    terminal.line()
    terminal.table(COLUMNS, judgement.rows())
    controls = judgement.raw.get("self_test") or {}
    if controls:
        terminal.line(f"Self-test {'passed' if controls.get('passed') else 'FAILED'}: {controls.get('reason')}")
    terminal.line(f"Verdict: {judgement.verdict}. {pipeline_summary.MEANING.get(judgement.verdict, '')}")
    for line in (*judgement.reasons, *ways):
        terminal.line(f"  {line}")


def _files(husai: Husai, job: Job, gate: Job | None, folder: Path) -> dict[str, str]:
    """Write the report and, if there is a decision, its bundle; returns their paths."""
    written: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    if job.state == "succeeded":
        report = folder / f"{job.id}.html"
        report.write_text(husai.report(job.id), encoding="utf-8")
        written["report"] = str(report)
    decision = next((d for d in husai.decisions() if gate and d.job in {gate.id, gate.reused_from}), None)
    if decision:
        bundle = folder / f"{job.id}.bundle.json"
        bundle.write_bytes(bundle_bytes(husai, decision.id))
        written["bundle"] = str(bundle)
    return written


def _follow_up(terminal: Terminal, job: Job, written: dict[str, str], named: Path | None) -> None:
    """Where things are, and what to do next."""
    terminal.line()
    for name, path in written.items():
        terminal.line(f"{name:<8}{path}")
    before = f"HUSAI_HOME={named.expanduser().absolute()} " if named else ""
    commands = [("check the decision, offline", f"husai verify {written['bundle']}")] if "bundle" in written else []
    commands += [
        ("serve what was made", f"{before}husai up"),
        ("the report again", f"{before}husai report {job.id}"),
        ("repeat it and compare", f"{before}husai rerun {job.id} --check"),
    ]
    terminal.line("next:")
    for what, command in commands:
        terminal.line(f"  {what:<28}{command}")


@contextmanager
def _server(place: Path, terminal: Terminal) -> Iterator[Server | None]:
    """The server of a home folder: the one that runs (None: it is not ours), or one for this command's time."""
    url = present(place)
    if url:
        terminal.note(f"using the server at {url}")
        yield None
        return
    terminal.note(f"starting a server on {place}")
    with Server(place, port=0) as server:
        yield server


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that what it started is stopped."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    yield


def _flush() -> None:
    import sys

    sys.stdout.flush()
