"""The web pages, and the candidates and badges that they show."""

from __future__ import annotations

from itertools import islice
from typing import Annotated
from urllib.parse import quote

import typer

from husai.commands.options import Json, Limit
from husai.connect import connect
from husai.errors import Exit, Usage
from husai.terminal import Terminal, short, short_ids

app = typer.Typer()


@app.command("open")
def open_page(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Show this job. [default: all jobs]")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser, or only print the address.")] = True,
    json: Json = False,
) -> int:
    """Open the web pages, signed in; the address works once, within a minute, and holds no key."""
    import webbrowser

    terminal = Terminal(json)
    with connect() as husai:
        page = f"/jobs/{husai.job(job).id}" if job else "/"
        address = f"{husai.url}/sign-in?code={quote(husai.login_code(), safe='')}&next={quote(page, safe='')}"
    if json:
        terminal.document({"url": address})
        return Exit.OK
    if browser and webbrowser.open(address):
        terminal.note("opened in your browser")
        return Exit.OK
    terminal.line(address)
    terminal.note("open this address within a minute; it works once")
    return Exit.OK


@app.command()
def candidates(
    everything: Annotated[bool, typer.Option("--all", help="Also the controls of gates.")] = False,
    limit: Limit = 20,
    json: Json = False,
) -> int:
    """List the SAEs that a gate may judge, newest first."""
    terminal = Terminal(json)
    with connect() as husai:
        items = list(islice(husai.candidates(controls=everything), limit))
    if json:
        terminal.document({"items": [dict(candidate.raw) for candidate in items]})
        return Exit.OK
    ids = short_ids(c.job for c in items if c.job)
    rows = [
        (short(c.sha256), str(c.facts.get("architecture") or ""), c.hook_name, c.facts.get("d_sae"), len(c.siblings),
         ids.get(c.job or ""), "public" if c.public_badge else "", (c.created_at or "")[:16].replace("T", " "))
        for c in items
    ]  # fmt: skip
    columns = ["sha256", "architecture", "hook", "latents", "other seeds", "job", "badge", "created"]
    droppable = ["architecture", "hook", "job", "other seeds", "latents", "badge", "created"]
    terminal.table(columns, rows, droppable=droppable)
    return Exit.OK


@app.command()
def badge(
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="SHA-256 of an SAE.", show_default=False)],
    public: Annotated[bool | None, typer.Option("--public/--private", help="Whether everybody may see it.")] = None,
    json: Json = False,
) -> int:
    """Let everybody see the verdict about an SAE as a picture for a README, or nobody."""
    if public is None:
        raise Usage("say --public or --private")
    terminal = Terminal(json)
    with connect() as husai:
        sha256 = husai.candidate(candidate).sha256
        husai.set_badge(sha256, public)
        address = f"{husai.url}/badges/{sha256}/strict.svg"
    if json:
        terminal.document({"candidate": sha256, "public": public, "url": address})
        return Exit.OK
    if public:
        terminal.line(address)
        terminal.note("shows the verdict of the policy 'strict' to everybody; name another policy in the address")
    else:
        terminal.line("private: the badge says 'no decision' to everybody, as for an SAE that does not exist")
    return Exit.OK
