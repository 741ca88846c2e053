"""Jobs: submit, list, show, watch, logs, cancel, retry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from husai.commands.options import Everything, JobId, Json, Limit, Timeout, check_timeout, outcome
from husai.connect import connect
from husai.errors import Exit, Refused, Usage
from husai.job_text import show, show_all, write_csv
from husai.models import Job, Plan
from husai.progress import follow
from husai.terminal import Terminal, short_ids

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
        Literal["gate", "interactive", "batch", "backfill"] | None,
        typer.Option(metavar="CLASS", help="Priority: gate, interactive, batch or backfill."),
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
    check_timeout(timeout, wait, "--wait")
    spec = spec_args.assign(spec_args.spec_file(file) if file else {}, set_ or [])
    inputs = spec_args.bindings(input_ or [])
    with connect() as husai:
        if plan:
            _show_plan(terminal, husai, husai.plan(kind, spec, inputs=inputs))
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
        show_all(husai, terminal, job)
        return outcome(job)


def _ready(husai: Husai, device: str) -> bool:
    return any(worker.device == device and worker.state == "ready" for worker in husai.workers())


def _show_plan(terminal: Terminal, husai: Husai, plan: Plan) -> None:
    if terminal.json:
        terminal.document({"cells": plan.cells, "estimate": plan.estimate, "missing": plan.missing})
        return
    rows = [(cell.get("name"), cell["kind"], *_estimate(cell.get("estimate"))) for cell in plan.cells]
    terminal.table(["name", "kind", "time", "memory", "disk"], rows, droppable=["kind", "disk"])
    _show_specs(terminal, husai, plan)
    if plan.estimate:
        time, memory, disk = _estimate(plan.estimate)
        terminal.paragraph(f"In all: {time or 'time unknown'}, {memory or '?'} of memory, {disk or '?'} on disk.")
        if plan.estimate.get("basis"):
            terminal.paragraph(f"The time rests on: {plan.estimate['basis']}.")
    for asset in plan.missing:
        text = asset if isinstance(asset, str) else f"{asset.get('name')}: {asset.get('how')}"
        terminal.paragraph(f"missing: {text}")


def _show_specs(terminal: Terminal, husai: Husai, plan: Plan) -> None:
    """What each spec sets to something else than the default, as `field: value`."""
    from husai.describe import changed, written

    kinds = {name: husai.kind(name) for name in {str(cell["kind"]) for cell in plan.cells}}
    for cell in plan.cells:
        settings = changed(cell.get("spec") or {}, kinds[cell["kind"]])
        terminal.line(f"{cell.get('name')}: {'' if settings else 'defaults'}".rstrip())
        for path, value in settings:
            terminal.paragraph(f"{path}: {written(value)}", indent=2)


def _estimate(estimate: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Time, peak memory and bytes written in words; empty where unknown."""
    from husai_core.render.numbers import duration, size

    known = estimate or {}
    seconds, memory, written = (known.get(name) for name in ("seconds", "memory_bytes", "written_bytes"))
    return (
        "at most " * bool(known.get("at_most")) + duration(seconds) if seconds is not None else "",
        size(memory) if memory else "",
        size(written) if written else "",
    )


@app.command("jobs")
def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    label: Annotated[str | None, typer.Option(help="Only jobs with this label.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only jobs of this owner.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this job.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also jobs that studies and gates asked for.")] = False,
    limit: Limit = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Go on with an earlier list: `next` of its --json.", show_default=False)
    ] = None,
    json: Json = False,
) -> int:
    """List jobs, newest first; those that a study or a gate asked for are folded away."""
    terminal = Terminal(json)
    top = not (everything or parent)
    with connect() as husai:
        jobs, following = husai.first_jobs(
            limit, state=state, kind=kind, label=label, parent=parent, owner=owner, top=top, cursor=cursor
        )
    if json:
        terminal.document({"items": [dict(job.raw) for job in jobs], "next": following})
        return Exit.OK
    columns = ["job", "kind", "name", "state", "spec", "done", "left", "owner", "created"]
    ids = short_ids(job.id for job in jobs)
    rows = [
        (ids[j.id], j.kind, j.name, j.state, j.summary, _done(j), _left(j), j.owner,
         (j.created_at or "")[:16].replace("T", " "))
        for j in jobs
    ]  # fmt: skip
    terminal.table(columns, rows, droppable=["name", "owner", "left", "spec", "created"])
    if following:
        terminal.line(f"There are more than these {len(jobs)}: --limit {5 * limit} lists more of them.")
    return Exit.OK


def _done(job: Job) -> str:
    progress = job.progress or {}
    if job.state == "succeeded":
        return "100%"
    return f"{progress['done'] / progress['total']:.0%}" if progress.get("total") and not job.final else ""


def _left(job: Job) -> str:
    from husai_core.render.numbers import duration

    seconds = (job.progress or {}).get("seconds_left")
    return "" if seconds is None or job.final else duration(round(seconds))


@app.command("show")
def show_job(
    job: JobId,
    everything: Everything = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write each table and figure as CSV into this folder; - prints them.")
    ] = None,
    json: Json = False,
) -> int:
    """Show what came of a job: its headline, tables and figures, and what it wrote."""
    terminal = Terminal(json)
    with connect() as husai, _pointing_on(husai, job):
        if json or csv:
            document = husai.panels(job)
            if csv:
                write_csv(terminal, document, csv)
            if json:
                terminal.document(document)
        else:
            show_all(husai, terminal, husai.job(job), everything)
    return Exit.OK


@contextmanager
def _pointing_on(husai: Husai, target: str) -> Iterator[None]:
    """Where a target is no job but a decision or an SAE, say which command shows it."""
    try:
        yield
    except Refused as error:
        if error.slug != "unknown-job":
            raise
        ways = {husai.decision: f"a decision: husai gate show {target}", husai.candidate: "an SAE: husai candidates"}
        for ask, way in ways.items():
            with suppress(Refused):
                ask(target)
                raise Usage(f"{target} is {way}") from None
        raise


@app.command()
def watch(job: JobId, timeout: Timeout = None, json: Json = False) -> int:
    """Show a job's progress until it has ended, then what came of it."""
    terminal = Terminal(json)
    with connect() as husai:
        ended = follow(husai, job, terminal, timeout=timeout)
        show_all(husai, terminal, ended)
    return outcome(ended)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job has ended.")] = False,
    json: Json = False,
) -> int:
    """Print a job's log; of a job that wrote none, say on stderr what happened to it."""
    terminal = Terminal(json)
    text = ""
    with connect() as husai:
        pieces = _live_log(husai, job) if follow else iter([husai.logs(job)])
        for piece in pieces:
            _print_log(terminal, piece)
            text += piece
        if not text:
            _instead_of_a_log(husai, husai.job(job), terminal)
    if json:
        terminal.document({"job": job, "lines": text.splitlines()})
    return Exit.OK


def _live_log(husai: Husai, job: str) -> Iterator[str]:
    for event in husai.events(job):
        if event.type == "log":
            yield str(event.data.get("text", "")).rstrip("\n") + "\n"


def _instead_of_a_log(husai: Husai, job: Job, terminal: Terminal) -> None:
    """What happened to a job that wrote no log, and where else to look."""
    terminal.note(f"job {job.id} wrote no log; what happened to it:")
    for event in husai.recent(job.id, limit=1000):
        if event.type in {"state", "attempt"}:
            facts = [str(event.data[name]) for name in ("state", "reason", "detail") if event.data.get(name)]
            what = ": ".join(facts) if event.type == "state" else f"attempt {event.data.get('number', '')}"
            terminal.note(f"  {(event.at or '')[:19].replace('T', ' ')}  {what}")
    children = husai.children(job)
    if children:
        ids = short_ids(child.id for child in children)
        terminal.note("the jobs that it asked for have logs of their own:")
        for child in children:
            terminal.note(f"  husai logs {ids[child.id]}  ({child.name or child.kind}, {child.state})")


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
