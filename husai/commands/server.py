"""The service on this machine: `up` runs it, `demo` shows all of it once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from husai.commands.gate import advised, bundle_bytes, decision_of, gate_of
from husai.commands.options import Home, Json, outcome
from husai.connect import connect, home
from husai.errors import Exit
from husai.job_text import show_panels
from husai.local_server import Server
from husai.models import Job
from husai.progress import follow
from husai.serving import local_server, stoppable, tending
from husai.terminal import Terminal, short
from husai.verdict import MEANING, Judgement

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Decision

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
    """Run the service on this machine until Ctrl-C or SIGTERM."""
    terminal = Terminal(json)
    place = home(home_)
    with stoppable(), Server(place, host, port) as server:
        if json:
            terminal.document(
                {"url": server.url, "home": str(place), "key_file": str(place / "key"), "pid": os.getpid()}
            )
        terminal.line(f"HUSAI runs at {server.url}")
        terminal.line("`husai open` shows its pages; stop it with Ctrl-C")
        terminal.pairs([("home", place), ("key", place / "key"), ("logs", place / "logs")], indent=2)
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
        terminal.note("stopping; running jobs pause and go on at the next `husai up`")


@app.command()
def demo(
    preset: Annotated[
        Literal["language", "modular", "smoke"],
        typer.Option(help="language: SAEs on the built-in language model; modular: on addition; smoke: the smallest."),
    ] = "language",
    home_: Home = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server until Ctrl-C when the demo is over.")] = False,
    json: Json = False,
) -> int:
    """Train SAEs on a small model, measure and stress them, and decide about a release."""
    terminal = Terminal(json)
    place = home(home_)
    with stoppable(), local_server(place, terminal) as server:
        with connect(place) as husai:
            job = husai.submit("study.pipeline", {"preset": preset}, labels=["demo"])
            terminal.note(f"job {job.id}: study.pipeline, preset {preset}")
            job = follow(husai, job.id, terminal, tend=tending(server, terminal))
            _sum_up(husai, terminal, job, place, home_)
        if keep and server:
            terminal.line(f"The server stays at {server.url}; stop it with Ctrl-C.")
            _flush()
            _serve(server, terminal)
    return outcome(job)


def _sum_up(husai: Husai, terminal: Terminal, job: Job, place: Path, chosen_home: Path | None) -> None:
    """Print what came out; write the report and the bundle."""
    if not terminal.json:
        show_panels(terminal, husai.panels(job.id))
    gate = gate_of(husai, job)
    decision = decision_of(husai, gate) if gate else None
    judgement = Judgement.of_decision(decision) if decision else None
    if judgement and not terminal.json:
        terminal.line()
        terminal.paragraph(f"{judgement.verdict}: policy {judgement.policy}, candidate {short(judgement.candidate)}")
        for line in (MEANING.get(judgement.verdict, ""), *advised(husai, judgement)):
            terminal.paragraph(line, indent=2)
    if job.state != "succeeded":
        terminal.paragraph(f"The pipeline came to no decision that counts: {job.why}")
        for child in husai.children(job):
            if child.state not in {"succeeded", "cancelled"}:
                terminal.paragraph(f"{child.name}: {child.why}", indent=2)
    written = _files(husai, job, decision, place / "reports")
    if terminal.json:
        terminal.document({"job": dict(job.raw), "decision": dict(judgement.raw) if judgement else None, **written})
    _follow_up(terminal, job, written, chosen_home)


def _files(husai: Husai, job: Job, decision: Decision | None, folder: Path) -> dict[str, str]:
    """Write the report and, if there is a decision, its bundle; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{job.id}.html"
    report.write_text(husai.report(job.id), encoding="utf-8")
    written = {"report": str(report)}
    if decision:
        bundle = folder / f"{job.id}.bundle.json"
        bundle.write_bytes(bundle_bytes(husai, decision.id))
        written["bundle"] = str(bundle)
    return written


def _follow_up(terminal: Terminal, job: Job, written: dict[str, str], chosen_home: Path | None) -> None:
    """Where things are, and what to do next."""
    terminal.line()
    terminal.pairs(written.items())
    before = f"HUSAI_HOME={chosen_home.expanduser().absolute()} " if chosen_home else ""
    commands = [("check the decision, offline", f"husai verify {written['bundle']}")] if "bundle" in written else []
    commands += [
        ("serve what was made", f"{before}husai up"),
        ("everything about it", f"{before}husai show {job.id} --all"),
        ("the report again", f"{before}husai report {job.id}"),
        ("repeat it and compare", f"{before}husai rerun {job.id} --check"),
    ]
    terminal.line("next:")
    terminal.pairs(commands, indent=2)


def _flush() -> None:
    import sys

    sys.stdout.flush()
