"""From the files of SAEs to a verdict in one command."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from husai import checking
from husai.commands.gate import decision_of, gate_of
from husai.commands.options import Json, Timeout, outcome
from husai.connect import connect, home
from husai.errors import Exit
from husai.job_text import show_all, show_panels
from husai.progress import follow
from husai.serving import local_server, stoppable, tending
from husai.terminal import Terminal, short
from husai.verdict import MEANING, Judgement

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Job

app = typer.Typer()
Wait = Callable[["Job"], "Job"]


@app.command()
def check(
    saes: Annotated[
        list[str],
        typer.Argument(
            metavar="SAE...",
            help="Folders or files of one SAE or of siblings that differ in their seed, the candidate first; "
            "saelens:RELEASE/SAE_ID; or the SHA-256 of SAEs that the service has.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="The language model that they read: a name, a folder or a SHA-256.")
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="A .txt or .md file to measure on; others may follow (`--text a/*.txt`)."),
    ] = None,
    shifted: Annotated[
        list[Path] | None,
        typer.Option(
            help="A text, or a folder of texts, of another domain; may be repeated. Without any, those of HUSAI."
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="How they were trained, as a recipe of train.sae, if their files do not say it.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Name of the policy that decides.")] = "own",
    hook_name: Annotated[str | None, typer.Option(help="Where in the model they read, if no file says it.")] = None,
    tokens: Annotated[int | None, typer.Option(min=16, help="Most tokens whose activations stresses read.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Set another field of study.check.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write what there is to see as one HTML file.")] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> int:
    """Measure SAEs as far as possible and decide about the first: exit 0 pass, 1 fail, 4 inconclusive.

    What could not be measured is named with what it would take; where that is everything, the exit is 2. Where no
    server runs, one runs for this command's time.
    """
    from husai.spec_args import assign, spec_file

    terminal = Terminal(json)
    request = checking.request(saes, model, text or [], shifted or [], hook_name, terminal)
    options: dict[str, Any] = {"policy": policy, "hook_name": hook_name, "max_rows": tokens}
    options |= {"recipe": spec_file(recipe, "a recipe")} if recipe else {}
    spec = assign({name: value for name, value in options.items() if value is not None}, set_ or [])
    with stoppable(), _service(terminal, timeout) as (husai, wait, kept):
        checking.refuse_early(husai, request, spec)
        imports = {what: wait(job) for what, job in checking.imports(husai, request, terminal).items()}
        for job in imports.values():
            if job.state != "succeeded":
                show_all(husai, terminal, job)
                return outcome(job)
        fields, inputs = checking.study(husai, request, imports, terminal)
        job = husai.submit("study.check", fields | spec, inputs=inputs)
        terminal.note(f"job {job.id}: study.check")
        return _conclude(husai, terminal, wait(job), report, kept)


@contextmanager
def _service(terminal: Terminal, timeout: float | None) -> Iterator[tuple[Husai, Wait, bool]]:
    """A client, what waits for a job, and whether the service outlives this command.

    `timeout` bounds all waiting together.
    """
    deadline = None if timeout is None else time.monotonic() + timeout

    def waiting(husai: Husai, tend: Callable[[], None] | None = None) -> Wait:
        def wait(job: Job) -> Job:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            return follow(husai, job.id, terminal, timeout=left, tend=tend)

        return wait

    if os.environ.get("HUSAI_URL"):
        with connect() as husai:
            yield husai, waiting(husai), True
        return
    place = home()
    with local_server(place, terminal) as server, connect(place) as husai:
        yield husai, waiting(husai, tending(server, terminal)), server is None


def _conclude(husai: Husai, terminal: Terminal, job: Job, report: Path | None, kept: bool) -> int:
    """Print what came out, the verdict last; returns its exit code, or how the job stands where there is none."""
    if report is None and not kept:
        report = home() / "reports" / f"{job.id}.html"
        report.parent.mkdir(exist_ok=True)
    if report and job.final:
        report.write_text(husai.report(job.id), encoding="utf-8")
    gate = gate_of(husai, job) if job.state == "succeeded" else None
    decision = decision_of(husai, gate) if gate else None
    if decision is None:
        show_all(husai, terminal, job)
        return Exit.USAGE if job.reason == "error.input" else outcome(job)
    judgement = Judgement.of_decision(decision)
    if terminal.json:
        terminal.document(dict(job.raw))
        return judgement.exit_code
    show_panels(terminal, {"panels": husai.panels(job.id)["panels"]})
    terminal.line()
    terminal.paragraph(f"{judgement.verdict}: policy {judgement.policy}, candidate {short(judgement.candidate)}")
    terminal.paragraph(MEANING.get(judgement.verdict, ""), indent=2)
    terminal.pairs(_places(husai, job, decision.id, report, kept).items(), indent=2)
    return judgement.exit_code


def _places(husai: Husai, job: Job, decision: str, report: Path | None, kept: bool) -> Mapping[str, str]:
    """Where to look further; `kept`: the service goes on."""
    places = {"page": f"{husai.url}/jobs/{job.id}"} if kept else {"serve its page again": "husai up"}
    places |= {"open it, signed in": f"husai open {job.id}", "every figure": f"husai show {job.id} --all"}
    places |= {"decision": f"husai gate show {short(decision)}"}
    return places | ({"report": str(report)} if report else {})
