"""Options that several commands share, and how a job's end becomes an exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from husai.errors import Exit
from husai.terminal import Terminal, number
from husai.verdict import interval

if TYPE_CHECKING:
    from husai.models import Job

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; then exit with 3.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Home folder of the server. [default: $HUSAI_HOME or ~/.husai]")
]
TABLES = {"members", "hooks"}
"""Lists in results whose entries are alike."""
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
        origin = "somebody else's job" if ":" in job.reused_from else f"job {job.reused_from}"
        terminal.line(f"  the stored result of {origin}")
    result = job.result or {}
    for name, value in result.items():
        if isinstance(value, str | int | float | bool):
            terminal.line(f"  {name} = {number(value)}")
    if young := result.get("unconverged"):
        terminal.line(f"  unconverged = {', '.join(young)}")
    for name in TABLES & result.keys():
        _show_rows(terminal, name, result[name])
    if figures := result.get("statistics"):
        rows = [(name, number(found.get("value")), interval(found)) for name, found in figures.items()]
        terminal.table(["figure", "value", "interval"], rows)
    outputs(terminal, job)


def outputs(terminal: Terminal, job: Job) -> None:
    """Print a job's artifacts, where there are several under the index by which an input names each."""
    imported = _imported(job.result["items"]) if job.result and job.kind == "data.import" else {}
    for name, digests in job.outputs.items():
        for position, digest in enumerate(digests):
            terminal.line(f"  {name}{f':{position}' if len(digests) > 1 else ''}: {digest}")
            for line in imported.get((name, position), []):
                terminal.line(f"    {line}")


def _imported(items: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[str]]:
    """What each imported thing is, where it came from, and the notes on it, by the output and index that hold it."""
    found: dict[tuple[str, int], list[str]] = {}
    for item in items:
        output = "saes" if item["what"] == "sae" else item["what"]
        told = {"what", "source", "notes"}
        facts = ", ".join(f"{name} {_cell(value)}" for name, value in item.items() if name not in told and value)
        lines = [f"{item['what']} from {item['source']}: {facts}", *item["notes"]]
        found[output, sum(output == name for name, _ in found)] = lines
    return found


def _show_rows(terminal: Terminal, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Alike parts of a result as a table of their plain figures."""
    filled = (key for row in rows for key, value in row.items() if isinstance(value, str | int | float | bool))
    columns = sorted(set(filled), key=list(rows[0]).index) if rows else []
    cells = ([_cell(row[key]) for key in columns] for row in rows)
    terminal.table([name, *columns], ([i, *row] for i, row in enumerate(cells)))


def _cell(value: Any) -> str:
    return "" if value is None else number(value)
