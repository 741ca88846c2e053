"""A job as text: how it stands, what there is to see of it, and what it wrote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from husai.terminal import Terminal, short
from husai_core.render.text_layout import indented

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Job

EVENTS, MOST_FIGURES = 1000, 12
"""Events that are asked for at once, and the figures of a running job that are shown."""


def show(terminal: Terminal, job: Job) -> None:
    """Print how a job stands and what it wrote, without asking the service for more."""
    if terminal.json:
        terminal.document(dict(job.raw))
        return
    status(terminal, job)
    outputs(terminal, job)


def show_all(husai: Husai, terminal: Terminal, job: Job, everything: bool = False) -> None:
    """Print a job with what there is to see of it; in JSON mode the job alone."""
    if terminal.json:
        terminal.document(dict(job.raw))
        return
    status(terminal, job)
    if job.final:
        show_panels(terminal, husai.panels(job.id), everything)
    else:
        terminal.pairs(_so_far(husai, job), indent=2)
    outputs(terminal, job)


def status(terminal: Terminal, job: Job) -> None:
    """A line that begins with the job's id, in full since scripts read it, and what the job waits for or repeats."""
    terminal.paragraph(f"{job.id} {job.kind} {job.why}")
    for asset in job.assets or []:
        if str(asset.get("how")) not in job.why:
            terminal.paragraph(f"needs {asset.get('name')}: {asset.get('how')}", indent=2)
    if job.reused_from:
        origin = "somebody else's job" if ":" in job.reused_from else f"job {job.reused_from}"
        terminal.paragraph(f"the stored result of {origin}", indent=2)


def _so_far(husai: Husai, job: Job) -> Iterator[tuple[str, str]]:
    """How far a job is that has not ended: its attempt, work, speed, latest figures, and the jobs it asked for."""
    from husai.progress import pace
    from husai_core.render import numbers

    if job.attempt:
        yield "attempt", str(job.attempt)
    if job.started_at:
        yield "started", job.started_at[:19].replace("T", " ") + " UTC"
    progress = job.progress
    if progress and progress.get("total"):
        done, total = (numbers.cell(progress[name], "integer") for name in ("done", "total"))
        yield "done", f"{done} of {total} {progress.get('unit', '')}, {progress['done'] / progress['total']:.0%}"
        if words := pace(progress.get("rate"), str(progress.get("unit", "")), progress.get("seconds_left")):
            yield "speed", words
    for name, value in islice(_latest_figures(husai, job).items(), MOST_FIGURES):
        yield name.replace("_", " "), numbers.plain(value)
    if states := Counter(child.state for child in husai.jobs(parent=job.id)):
        yield "its jobs", ", ".join(f"{count} {state}" for state, count in states.items())


def _latest_figures(husai: Husai, job: Job) -> Mapping[str, float | None]:
    """The figures that a job reported last."""
    figures: Mapping[str, float | None] = {}
    seen = 0
    while events := husai.recent(job.id, seen, limit=EVENTS, type="metrics"):
        seen, figures = events[-1].id, events[-1].data.get("values", {})
        if len(events) < EVENTS:
            break
    return figures


def outputs(terminal: Terminal, job: Job) -> None:
    """Print a job's artifacts, where there are several under the index by which an input names each."""
    pairs = [
        (f"{name}:{position}" if len(digests) > 1 else name, short(digest))
        for name, digests in job.outputs.items()
        for position, digest in enumerate(digests)
    ]
    if pairs:
        terminal.line()
        terminal.line("Artifacts")
        terminal.pairs(pairs, indent=2)


def show_panels(terminal: Terminal, document: Mapping[str, Any], everything: bool = False) -> None:
    """Print a job's panels; of a study's children, only the headlines unless `everything` is wanted."""
    _draw(terminal, document["panels"], everything)
    children = document.get("children", [])
    if children and not everything:
        terminal.line()
        terminal.line("Its jobs (--all shows all of each)")
    for child in children:
        panels = child["panels"] if everything else [p for p in child["panels"] if p.get("type") == "headline"]
        terminal.lines(["", f"{child.get('name') or child['kind']}: {child['state']}"])
        _draw(terminal, panels, everything, indent=2)


def _draw(terminal: Terminal, panels: Sequence[Mapping[str, Any]], everything: bool, indent: int = 0) -> None:
    from husai_core.render.text_panels import read, render

    if panels:
        lines = render(read(panels), terminal.width - indent, everything=everything, paint=terminal.paint())
        terminal.lines(["", *indented(lines, indent)] if not indent else indented(lines, indent))


def write_csv(terminal: Terminal, document: Mapping[str, Any], folder: Path) -> None:
    """Write every panel of a job and its children as CSV: a file each in a folder, or one after another for `-`."""
    for name, text in _as_csv(document):
        if str(folder) == "-":
            terminal.line(f"# {name}")
            terminal.lines(text.split("\n"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.csv").write_text(text, encoding="utf-8")
            terminal.line(str(folder / f"{name}.csv"))


def _as_csv(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """File name and CSV of each panel, in their order."""
    from husai_core.panels import to_csv
    from husai_core.render.text_panels import read

    sources = [("", document), *((str(c.get("name") or c["kind"]), c) for c in document.get("children", []))]
    position = 0
    for owner, source in sources:
        for panel in read(source["panels"]):
            title = "-".join(filter(None, [owner, panel.title or panel.type]))
            yield f"{position:02d}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}", to_csv(panel)
            position += 1
