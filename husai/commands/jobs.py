"""Jobs: submit, list, watch, logs, cancel, retry."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from husai.commands.options import JobId, Json, Limit, Timeout, outcome, show
from husai.connect import connect
from husai.errors import Exit, Usage
from husai.models import Job, Plan
from husai.progress import follow
from husai.terminal import Terminal

if TYPE_CHECKING:
    from husai.client import Husai

app = typer.Typer()


@app.command()
def submit(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="What to run, for example train.sae.", show_default=False)
    ],
    file: Annotated[Path | None, typer.Option("-f", "--file", help="Spec, YAML or JSON; - reads stdin.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Set one field.")] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="PORT=SOURCE", help="Bind an input: SHA256 or job:JOB:OUTPUT[:INDEX]."),
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to run.")] = None,
    priority: Annotated[
        Literal["gate", "interactive", "batch", "backfill"] | None, typer.Option(help="Priority class.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A word to find the job by; may be repeated.")] = None,
    reuse: Annotated[Literal["allow", "never"] | None, typer.Option(help="Whether a stored result will do.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same job.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would run, and run nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    timeout: Timeout = None,
    json: Json = False,
) -> int:
    """Submit a job of one kind."""
    from husai import spec_args

    terminal = Terminal(json)
    if timeout is not None and not wait:
        raise Usage("--timeout bounds the wait of --wait")
    spec = spec_args.assign(spec_args.spec_file(file) if file else {}, set_ or [])
    inputs = spec_args.bindings(input_ or [])
    with connect() as husai:
        if plan:
            _show_plan(terminal, husai.plan(kind, spec, inputs=inputs))
            return Exit.OK
        job = husai.submit(
            kind, spec, inputs=inputs, labels=label or [], priority=priority, device=device, reuse=reuse, key=key
        )
        if device == "cuda" and not job.final and not _ready(husai, device):
            terminal.note("no worker here has a cuda device; the job waits until one starts")
        if not wait:
            show(terminal, job)
            return outcome(job) if job.final else Exit.OK
        terminal.note(f"job {job.id}")
        job = follow(husai, job.id, terminal, timeout=timeout)
        show(terminal, job)
        return outcome(job)


def _ready(husai: Husai, device: str) -> bool:
    return any(worker.device == device and worker.state == "ready" for worker in husai.workers())


def _show_plan(terminal: Terminal, plan: Plan) -> None:
    if terminal.json:
        terminal.document({"cells": plan.cells, "estimate": plan.estimate, "missing": plan.missing})
        return
    rows = [(cell.get("name"), cell["kind"], _compact(cell.get("spec")) or "defaults") for cell in plan.cells]
    terminal.table(["name", "kind", "spec"], rows)
    if plan.estimate:
        terminal.line("estimate: " + _compact(plan.estimate))
    for asset in plan.missing:
        terminal.line(f"missing: {asset if isinstance(asset, str) else _compact(asset)}")


def _compact(value: object) -> str:
    import json

    return json.dumps(value, separators=(", ", "="), ensure_ascii=False).replace('"', "") if value else ""


@app.command("jobs")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    label: Annotated[str | None, typer.Option(help="Only jobs with this label.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this job.")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> int:
    """List jobs, newest first."""
    terminal = Terminal(json)
    with connect() as husai:
        found = list(islice(husai.jobs(state=state, kind=kind, label=label, parent=parent), limit))
    if json:
        terminal.document({"items": [dict(job.raw) for job in found]})
    columns = ["job", "kind", "name", "state", "done", "created"]
    terminal.table(columns, ((j.id, j.kind, j.name, j.state, _done(j), (j.created_at or "")[:19]) for j in found))
    return Exit.OK


def _done(job: Job) -> str:
    progress = job.progress or {}
    if job.state == "succeeded":
        return "100%"
    return f"{progress['done'] / progress['total']:.0%}" if progress.get("total") and not job.final else ""


@app.command()
def watch(job: JobId, timeout: Timeout = None, json: Json = False) -> int:
    """Show a job's progress until it has ended."""
    terminal = Terminal(json)
    with connect() as husai:
        ended = follow(husai, job, terminal, timeout=timeout)
    show(terminal, ended)
    return outcome(ended)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job has ended.")] = False,
    json: Json = False,
) -> int:
    """Print a job's log."""
    terminal = Terminal(json)
    with connect() as husai:
        if not follow:
            text = husai.logs(job)
            _print_log(terminal, text)
            if not text:
                terminal.note(f"job {job} has written nothing to its log")
        else:
            text = ""
            for event in husai.events(job):
                if event.type == "log":
                    piece = str(event.data.get("text", "")).rstrip("\n") + "\n"
                    _print_log(terminal, piece)
                    text += piece
    if json:
        terminal.document({"job": job, "lines": text.splitlines()})
    return Exit.OK


def _print_log(terminal: Terminal, text: str) -> None:
    import sys

    for line in text.splitlines():
        terminal.line(line)
    sys.stdout.flush()


@app.command()
def cancel(job: JobId, json: Json = False) -> int:
    """Stop a job; only this request is withdrawn if others wait for the same computation."""
    with connect() as husai:
        show(Terminal(json), husai.cancel(job))
    return Exit.OK


@app.command()
def retry(job: JobId, json: Json = False) -> int:
    """Submit a job that did not succeed once more."""
    with connect() as husai:
        show(Terminal(json), husai.retry(job))
    return Exit.OK
