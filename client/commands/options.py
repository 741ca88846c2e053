"""Options that several commands share, and how a job's end becomes an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.errors import Exit
from client.terminal import Terminal, number, short

if TYPE_CHECKING:
    from client.models import Job

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; then exit with 3.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Home folder of the server. [default: $HUSAI_HOME or ~/.husai]")
]
Limit = Annotated[int, typer.Option(min=1, help="How many to list at most.")]


def outcome(job: Job) -> Exit:
    """The exit code for how a job stands."""
    if job.state == "succeeded":
        return Exit.OK
    return Exit.INCONCLUSIVE if job.state == "blocked" else Exit.FAIL


def show(terminal: Terminal, job: Job) -> None:
    """Print a job: its state, the plain figures of its result, and its artifacts."""
    if terminal.json:
        terminal.document(dict(job.raw))
        return
    terminal.line(f"{job.id}  {job.kind}  {job.why}")
    if job.reused_from:
        terminal.line(f"  the stored result of job {job.reused_from}")
    for name, value in (job.result or {}).items():
        if isinstance(value, str | int | float | bool):
            terminal.line(f"  {name} = {number(value)}")
    for name, digests in job.outputs.items():
        terminal.line(f"  {name}: {' '.join(map(short, digests))}")
