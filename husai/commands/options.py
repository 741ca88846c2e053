"""Options that several commands share, and how a job's end becomes an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from husai.errors import Exit, Usage

if TYPE_CHECKING:
    from husai.models import Job

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, or its first 8 digits.", show_default=False)]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds to wait at most; then exit with 3.")]
Home = Annotated[
    Path | None, typer.Option("--home", help="Home folder of the server. [default: $HUSAI_HOME or ~/.husai]")
]
Everything = Annotated[bool, typer.Option("--all", help="Show what is folded away, too.")]
Limit = Annotated[int, typer.Option(min=1, help="How many to list at most.")]


OUTCOMES = {"succeeded": Exit.OK, "timed_out": Exit.TIMEOUT}


def outcome(job: Job) -> Exit:
    """The exit code for how a job stands; 1 is kept for verdicts and comparisons."""
    return Exit.INCONCLUSIVE if job.is_blocked else OUTCOMES.get(job.state, Exit.SERVICE)


def check_timeout(timeout: float | None, wait: bool, option: str) -> None:
    """Refuse a time limit where nothing is waited for.

    Raises:
        Usage: there is one.
    """
    if timeout is not None and not wait:
        raise Usage(f"--timeout bounds the wait of {option}")
