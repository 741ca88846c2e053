"""A job's report, and its repetition."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from husai.commands.options import JobId, Json, Timeout, check_timeout, outcome
from husai.compare import Comparison, compare
from husai.connect import connect
from husai.errors import Exit
from husai.job_text import show
from husai.progress import follow
from husai.terminal import Terminal, short

app = typer.Typer()


@app.command()
def report(
    job: JobId,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write. [default: husai-JOB.html]")
    ] = None,
    json: Json = False,
) -> int:
    """Write what there is to see of a job, of any kind and in any state, as one HTML file."""
    terminal = Terminal(json)
    path = output or Path(f"husai-{job}.html")
    with connect() as husai:
        path.write_text(husai.report(job), encoding="utf-8")
    if json:
        terminal.document({"job": job, "path": str(path)})
    terminal.line(str(path))
    return Exit.OK


@app.command()
def rerun(
    job: JobId,
    check: Annotated[bool, typer.Option("--check", help="Wait, and compare every artifact with the original.")] = False,
    timeout: Timeout = None,
    json: Json = False,
) -> int:
    """Compute a job once more, whatever is stored; --check compares (exit 1 different, 4 other hardware or version)."""
    terminal = Terminal(json)
    check_timeout(timeout, check, "--check")
    with connect() as husai:
        first = husai.job(job)
        second = husai.rerun(job)
        if not check:
            show(terminal, second)
            return Exit.OK
        terminal.note(f"job {second.id}")
        second = follow(husai, second.id, terminal, timeout=timeout)
        if second.state != "succeeded":
            show(terminal, second)
            return outcome(second)
        comparison = compare(husai, first, second)
    _show(terminal, comparison, first.id, second.id)
    return comparison.exit_code


def _show(terminal: Terminal, comparison: Comparison, first: str, second: str) -> None:
    if terminal.json:
        rows = [asdict(row) for row in comparison.rows]
        surroundings = comparison.surroundings
        equal = comparison.exit_code is Exit.OK
        terminal.document(
            {"first": first, "second": second, "equal": equal, "rows": rows, "surroundings": surroundings}
        )
        return
    columns = ["job", "output", "first", "second", "verdict", "note"]
    cells = [(r.job, r.output, short(r.first or ""), short(r.second or ""), r.verdict, r.note) for r in comparison.rows]
    terminal.table(columns, cells, droppable=["note", "second", "first"])
    if comparison.other_version:
        terminal.paragraph("The second was computed by another version of the code.")
    elif comparison.surroundings:
        terminal.paragraph(f"The surroundings differ in: {', '.join(comparison.surroundings)}")
    same = sum(row.verdict == "equal" for row in comparison.rows)
    terminal.line(f"{same} of {len(comparison.rows)} are equal.")
