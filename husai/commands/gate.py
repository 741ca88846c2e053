"""The release gate: decide, wait, show."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from husai.commands.options import Json, Timeout, outcome
from husai.connect import connect
from husai.errors import Exit, HusaiError, Refused, TimedOut, Usage
from husai.job_text import show
from husai.models import Job
from husai.progress import leaving
from husai.terminal import Terminal, short
from husai.verdict import COLUMNS, DROPPABLE, Judgement, junit, markdown

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Decision

SLACK_SECONDS = 2.0
"""What a request that is under way when the time is over may still take."""
app = typer.Typer(help="The release gate: ask for a decision, wait for it, show it.")

Policy = Annotated[str, typer.Option(help="Name of the policy.")]


@app.command()
def decide(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="SHA-256 of an SAE.", show_default=False)],
    policy: Policy = "strict",
    evidence: Annotated[
        list[str] | None, typer.Option(help="SHA-256 of a result to judge besides all that is known; may be repeated.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same job.")] = None,
    json: Json = False,
) -> int:
    """Ask a policy about a candidate; wait for the answer with `husai gate wait JOB`."""
    with connect() as husai:
        show(Terminal(json), husai.decide(candidate, policy=policy, evidence=evidence or [], key=key))
    return Exit.OK


@app.command()
def wait(
    target: Annotated[str | None, typer.Argument(metavar="[JOB|DECISION]", help="A gate job or a decision.")] = None,
    candidate: Annotated[str | None, typer.Option(help="Wait for a decision about this SHA-256 instead.")] = None,
    policy: Policy = "strict",
    timeout: Timeout = None,
    summary: Annotated[
        Path | None, typer.Option(help="Append a Markdown summary, e.g. to $GITHUB_STEP_SUMMARY.")
    ] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    json: Json = False,
) -> int:
    """Wait for a verdict: exit 0 pass, 1 fail, 3 timeout, 4 inconclusive or blocked, 5 service error."""
    terminal = Terminal(json)
    if (target is None) == (candidate is None):
        raise Usage("name either a job or decision, or --candidate")
    with connect() as husai:
        if timeout is not None:
            husai.limit(timeout + SLACK_SECONDS)
        if candidate is not None:
            husai.candidate(candidate)
            answer: Judgement | Job = _latest(husai, candidate, policy, timeout)
        else:
            answer = _target(husai, target or "", timeout, terminal)
        ways: list[str] = []
        if not isinstance(answer, Job):
            with suppress(HusaiError):  # a verdict that is known counts, whatever happens to the service now
                ways = advised(husai, answer)
    if isinstance(answer, Job):
        show(terminal, answer)
        return outcome(answer)
    if summary:
        with summary.open("a", encoding="utf-8") as file:
            file.write(markdown(answer))
    if junit_file:
        junit_file.write_text(junit(answer), encoding="utf-8")
    print_judgement(terminal, answer, ways)
    return answer.exit_code


def _latest(husai: Husai, candidate: str, policy: str, timeout: float | None) -> Judgement:
    """The newest decision about a candidate, waiting for the first one."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = 25.0 if deadline is None else deadline - time.monotonic()
        decision = husai.latest(candidate, policy=policy, wait=max(0.0, min(25.0, left)))
        if decision is not None:
            return Judgement.of_decision(decision)
        if deadline is not None and time.monotonic() >= deadline:
            raise TimedOut(f"there is no decision of {policy} about {candidate} after {timeout:g} s")
        time.sleep(0.5)


def _target(husai: Husai, target: str, timeout: float | None, terminal: Terminal) -> Judgement | Job:
    """The judgement that a decision holds or a job comes to; the job itself if it comes to none."""
    try:
        husai.job(target)
    except Refused as error:
        if error.slug != "unknown-job":
            raise
        return Judgement.of_decision(husai.decision(target))
    if timeout != 0:
        terminal.note(f"waiting for job {target}")
    with leaving(terminal, target, again=f"husai gate wait {target}"):
        job = husai.wait(target, timeout, until=lambda job: job.is_blocked)
    if job.state != "succeeded":
        return job
    gate = gate_of(husai, job)
    if gate is None:
        raise Usage(f"job {target} ({job.kind}) makes no decision")
    decision = decision_of(husai, gate)
    if decision is None:
        raise Usage(f"job {target} has ended without a decision that this key may see")
    return Judgement.of_decision(decision)


def decision_of(husai: Husai, gate: Job) -> Decision | None:
    """What a gate job decided."""
    return next(husai.decisions(job=gate.id), None)


def gate_of(husai: Husai, job: Job) -> Job | None:
    """The gate job that a job is, or that a study ran last."""
    if job.kind == "release.gate":
        return job
    gates = [child for child in husai.children(job) if child.kind == "release.gate"]
    return husai.job(gates[-1].id) if gates and gates[-1].state == "succeeded" else None


@app.command("show")
def show_decision(
    target: Annotated[
        str, typer.Argument(metavar="DECISION|JOB", help="A decision, or a job that made one.", show_default=False)
    ],
    bundle: Annotated[Path | None, typer.Option(help="Also write the bundle for `husai verify` to this file.")] = None,
    json: Json = False,
) -> int:
    """Show a decision; its verdict does not change the exit code."""
    terminal = Terminal(json)
    with connect() as husai:
        answer = _target(husai, target, 0, terminal)
        if isinstance(answer, Job) or answer.decision is None:
            raise Usage(f"job {target} has made no decision")
        print_judgement(terminal, answer, advised(husai, answer))
        if bundle:
            bundle.write_bytes(bundle_bytes(husai, answer.decision))
            terminal.note(f"bundle: {bundle}")
    return Exit.OK


def bundle_bytes(husai: Husai, decision: str) -> bytes:
    """A decision's bundle as a file's content."""
    from husai_core.identity import canonical

    return canonical(husai.bundle(decision)) + b"\n"


def advised(husai: Husai, judgement: Judgement) -> list[str]:
    """What would decide the undecided rules with the kinds that the service has; other verdicts cost no request."""
    from husai_core.release.advice import advice

    if judgement.verdict != "inconclusive":
        return []
    kinds = [kind.name for kind in husai.kinds()]
    return advice(judgement.verdict, judgement.rules, kinds, _not_measured(husai, judgement))


def _not_measured(husai: Husai, judgement: Judgement) -> Sequence[Mapping[str, Any]]:
    """What the check that asked for a decision could not measure; nothing where no check did."""
    gate = husai.job(judgement.job) if judgement.job else None
    study = husai.job(gate.parent) if gate and gate.parent else None
    return (study.result or {}).get("not_measured", ()) if study and study.kind == "study.check" else ()


def print_judgement(terminal: Terminal, judgement: Judgement, ways: Sequence[str]) -> None:
    """Print a verdict with the table of its rules, its reasons, and what would decide it."""
    if terminal.json:
        terminal.document(dict(judgement.raw))
        return
    if judgement.rules:
        terminal.table(COLUMNS, judgement.rows(), droppable=DROPPABLE)
    terminal.line()
    terminal.paragraph(f"{judgement.verdict}: policy {judgement.policy}, candidate {short(judgement.candidate)}")
    for line in (*judgement.grouped_reasons, *ways):
        terminal.paragraph(line, indent=2)
    if judgement.decision:
        terminal.line(f"decision {short(judgement.decision)}: husai gate show {short(judgement.decision)}")
