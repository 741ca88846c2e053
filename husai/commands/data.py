"""What goes in and out: import, export, artifacts, kinds, and the log of everything that was run."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from husai import describe
from husai.commands.options import Json, Limit, Timeout, outcome
from husai.connect import connect
from husai.errors import Exit, Refused, Usage
from husai.imports import collected, registry_names, send, submit_import
from husai.job_text import show_all
from husai.models import Job, Kind
from husai.progress import follow
from husai.terminal import Terminal, short, size
from husai_core.render import prose
from husai_core.render import text_layout as layout

if TYPE_CHECKING:
    from husai.client import Husai

app = typer.Typer()
SHA256_DIGITS = 64
LAYOUTS = "Layout: auto, husai, saelens, dictionary_learning, sparsify, huggingface or earlier."


@app.command("import")
def import_files(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Files that belong together, or folders of them; or saelens:RELEASE/SAE_ID of SAELens' registry.",
        ),
    ],
    format: Annotated[str | None, typer.Option(help=LAYOUTS)] = None,
    what: Annotated[str | None, typer.Option(help="What they hold: sae, transformer or activations.")] = None,
    hook_name: Annotated[str | None, typer.Option(help="Where in the model an SAE reads.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Set another field.")] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> int:
    """Bring in SAEs, a transformer or activations from files, and make candidates and artifacts of them.

    A transformer may be a language model: the folder that its save_pretrained and its tokeniser's wrote. SAEs of
    SAELens' registry are read on the worker's machine, from its mirror or its Hugging Face cache.
    """
    from husai.spec_args import assign

    terminal = Terminal(json)
    public = registry_names(files)
    paths = {} if public else collected(files, terminal)
    options = {"format": format, "what": what, "hook_name": hook_name, "saelens": public or None}
    spec = assign({name: value for name, value in options.items() if value is not None}, set_ or [])
    with connect() as husai:
        job = submit_import(husai, paths, spec, terminal)
        job = follow(husai, job.id, terminal, timeout=timeout)
        digests = {digest for output in job.outputs.values() for digest in output}
        known = [candidate for candidate in husai.candidates() if candidate.sha256 in digests] if digests else []
        if json:
            terminal.document({"job": dict(job.raw), "candidates": [dict(c.raw) for c in known]})
            return outcome(job)
        show_all(husai, terminal, job)
    if job.state == "succeeded":
        terminal.paragraph(f"The gate can judge {len(known)} of these." if known else "There is no SAE to judge.")
    return outcome(job)


@app.command()
def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files that belong together, such as texts.")],
    json: Json = False,
) -> int:
    """Store files as they are, and print the SHA-256 by which an input takes them."""
    terminal = Terminal(json)
    with connect() as husai:
        stored = send(husai, collected(files, terminal), terminal)
    if json:
        terminal.document(dict(stored.raw))
    terminal.line(stored.sha256)
    return Exit.OK


@app.command()
def export(
    what: Annotated[
        str, typer.Argument(metavar="JOB|SHA256", help="Id of the job, or one artifact's digest.", show_default=False)
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.", show_default=False)],
    json: Json = False,
) -> int:
    """Write a job's outputs as plain files with its manifest.json (a study: a folder per child), or one artifact."""
    terminal = Terminal(json)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Usage(f"{directory} is not an empty folder")
    with connect() as husai:
        written = _export_any(husai, what, directory, terminal)
    if json:
        terminal.document(
            {"directory": str(directory), "files": [str(path.relative_to(directory)) for path in written]}
        )
    terminal.line(f"{len(written)} files in {directory}")
    return Exit.OK


def _export_any(husai: Husai, what: str, directory: Path, terminal: Terminal) -> list[Path]:
    """Write a job's outputs, or one artifact: first digits are a job's where one begins with them."""
    if len(what) < SHA256_DIGITS:
        try:
            job = husai.job(what)
            return _export(husai, job, directory, terminal) or _nothing(job)
        except Refused as error:
            if error.slug != "unknown-job":
                raise
            not_a_job = error
        try:
            return husai.fetch(what, directory)
        except Refused:
            raise not_a_job from None
    return husai.fetch(what, directory)


def _nothing(job: Job) -> list[Path]:
    """Refuse to export a job without outputs.

    Raises:
        Usage: always; it says whether there will be some.
    """
    if job.final:
        raise Usage(f"job {job.id} {job.state.replace('_', ' ')}, so it has nothing to export")
    raise Usage(f"job {job.id} is {job.state}; it can be exported when it has succeeded (`husai watch {job.id}` waits)")


def _export(husai: Husai, job: Job, directory: Path, terminal: Terminal) -> list[Path]:
    from husai.files import inside

    terminal.note(f"{job.name or job.kind}: {job.state}")
    written: list[Path] = []
    for name, digests in job.outputs.items():
        for position, digest in enumerate(digests):
            place = directory if name in {"result", "manifest"} else inside(directory, name)
            written += husai.fetch(digest, place / str(position) if len(digests) > 1 else place)
    for child in husai.children(job):
        written += _export(husai, child, inside(directory, child.name or child.id), terminal)
    return written


@app.command()
def artifacts(
    sha256: Annotated[str | None, typer.Argument(metavar="[SHA256]", help="Show the files of this one.")] = None,
    type: Annotated[str | None, typer.Option(help="Only artifacts of this type.")] = None,
    limit: Limit = 20,
    json: Json = False,
) -> int:
    """List artifacts, newest first, or the files of one."""
    terminal = Terminal(json)
    with connect() as husai:
        items = [husai.artifact(sha256)] if sha256 else list(islice(husai.artifacts(type=type), limit))
    if json:
        terminal.document(dict(items[0].raw) if sha256 else {"items": [dict(artifact.raw) for artifact in items]})
    elif sha256:
        files = items[0].files.items()
        terminal.table(["file", "size", "sha256"], ((name, size(f["size"]), f["sha256"]) for name, f in files))
    else:
        rows = ((short(a.sha256), a.type, size(a.size), (a.created_at or "")[:16].replace("T", " ")) for a in items)
        terminal.table(["sha256", "type", "size", "created"], rows, droppable=["size", "created"])
    return Exit.OK


@app.command()
def kinds(name: Annotated[str | None, typer.Argument(help="Show this kind.")] = None, json: Json = False) -> int:
    """List the job kinds, or what one of them takes and delivers."""
    terminal = Terminal(json)
    with connect() as husai:
        items = [husai.kind(name)] if name else husai.kinds()
    if json:
        terminal.document(dict(items[0].raw) if name else {"items": [dict(kind.raw) for kind in items]})
    elif name:
        _show_kind(terminal, items[0])
    else:
        terminal.table(["kind", "what it does"], ((k.name, k.help.partition("\n\n")[0].strip()) for k in items))
    return Exit.OK


def _show_kind(terminal: Terminal, kind: Kind) -> None:
    """What a kind is for, takes, delivers, and can be told."""
    terminal.line(kind.name)
    for block in prose.blocks(kind.help):
        terminal.line()
        if isinstance(block, str):
            terminal.paragraph(block)
        for item in block if isinstance(block, list) else ():
            first, *others = layout.wrap(layout.printable(item), terminal.width - 2)
            terminal.lines([f"- {first}", *layout.indented(others)])
    for title, ports in (("inputs", kind.inputs), ("outputs", kind.outputs)):
        rows = [
            (port, f"{'several ' * bool(p.get('many'))}{p['type']}", _needed(p), p["help"]) for port, p in ports.items()
        ]
        if rows:
            terminal.line()
            terminal.table([title, "type", "", "help"], rows)
    if kind.statistics:
        terminal.line()
        terminal.paragraph(f"A release policy can read: {', '.join(kind.statistics)}")
    terminal.line()
    columns = ["field", "type", "default", "range", "help"]
    terminal.table(columns, describe.fields(kind.spec_schema))


def _needed(port: Any) -> str:
    if not port.get("required", True):
        return "optional"
    return f"at least {port['at_least']}" if port.get("many") else "required"


@app.command()
def log(limit: Limit = 50, json: Json = False) -> int:
    """Print what was run, as commands, with the artifacts that came of it; newest first."""
    terminal = Terminal(json)
    with connect() as husai:
        kinds = {kind.name: kind for kind in husai.kinds()}
        jobs = list(islice(husai.jobs(include=["spec", "inputs", "outputs"]), limit))
        rows = [(job, describe.command(job, kinds.get(job.kind))) for job in jobs]
    if json:
        items = [{"job": j.id, "state": j.state, "command": c, "outputs": dict(j.outputs)} for j, c in rows]
        terminal.document({"items": items})
    for job, command in rows:
        place = f"  child {job.name!r} of {job.parent}" if job.parent else ""
        terminal.paragraph(f"{(job.created_at or '')[:19]}  {job.id}  {job.why}{place}")
        lines = describe.continued(command, terminal.width - 4)
        terminal.lines(layout.printable(line) for line in [f"  $ {lines[0]}", *layout.indented(lines[1:], 4)])
        for name, digests in job.outputs.items():
            terminal.paragraph(f"{name}: {' '.join(map(short, digests))}", indent=4)
    return Exit.OK
