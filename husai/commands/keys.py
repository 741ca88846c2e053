"""Keys: those of the API, which are listed, made and ended here, and those that decisions are signed with."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from husai.commands.options import Json
from husai.connect import connect
from husai.errors import Exit, Usage
from husai.terminal import Terminal
from husai_core.render.text_layout import printable

SCOPES = {
    "read": "see jobs, results and decisions",
    "submit": "start jobs and send files",
    "gate": "ask for decisions",
    "admin": "make keys and see everybody's jobs",
}
"""What a key may do, in words."""
app = typer.Typer(help="API keys (making one needs the scope admin) and signing keys.", no_args_is_help=False)


@app.command("list")
def list_keys(json: Json = False) -> int:
    """List keys, without their secrets."""
    terminal = Terminal(json)
    with connect() as husai:
        keys = husai.keys()
    if json:
        terminal.document({"items": [dict(key.raw) for key in keys]})
    rows = (
        (
            k.id,
            k.name,
            k.owner,
            k.prefix,
            " ".join(k.scopes),
            (k.expires_at or "")[:10],
            (k.revoked_at or "")[:10],
            k.browsers or "",
        )
        for k in keys
    )
    columns = ["id", "name", "owner", "prefix", "scopes", "expires", "revoked", "browsers"]
    terminal.table(columns, rows, droppable=["owner", "expires", "browsers", "prefix"])
    return Exit.OK


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option(help="What the key may do: read, submit, gate or admin; may be repeated.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whose key it is; made if new. [default: yours]")] = None,
    role: Annotated[Literal["researcher", "ci", "admin"] | None, typer.Option(help="Role of a new owner.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until the key expires. [default: never]")] = None,
    json: Json = False,
) -> int:
    """Make a key and print its token, which is shown only this once."""
    terminal = Terminal(json)
    scopes = scope or _ask_for_scopes(terminal)
    with connect() as husai:
        key = husai.create_key(name, scopes, owner=owner, role=role, expires_in_days=days)
    terminal.note(f"{key.name or name}, a key of {key.owner or 'yours'}, may " + "; ".join(map(_may, key.scopes)))
    if json:
        terminal.document(dict(key.raw))
    terminal.line(key.token or "")
    return Exit.OK


def _ask_for_scopes(terminal: Terminal) -> list[str]:
    """What a new key may do, asked on a terminal.

    Raises:
        Usage: nobody is there to ask.
    """
    if not sys.stdin.isatty():
        choices = ", ".join(f"{name} ({text})" for name, text in SCOPES.items())
        raise Usage(f"say with --scope what the key may do; there are {choices}")
    terminal.note("What may the key do?")
    for name, text in SCOPES.items():
        terminal.note(f"  {name:<7} {text}")
    answer = typer.prompt("scopes, separated by spaces", default="read submit", err=True)
    return str(answer).replace(",", " ").split()


def _may(scope: str) -> str:
    return SCOPES.get(scope, scope)


@app.command()
def signing(json: Json = False) -> int:
    """Print the public keys that decisions are signed with (PEM), for `husai verify --public-key`."""
    terminal = Terminal(json)
    with connect() as husai:
        keys = husai.signing_keys()
    if json:
        terminal.document({"items": [dict(key.raw) for key in keys]})
    for key in keys:
        terminal.line(f"# {key.keyid}{'' if key.current else ' (an earlier key)'}")
        terminal.lines(map(printable, key.pem.strip().split("\n")))
    return Exit.OK


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.")], json: Json = False) -> int:
    """End a key at once."""
    terminal = Terminal(json)
    with connect() as husai:
        husai.revoke_key(key)
    if json:
        terminal.document({"id": key, "revoked": True})
    terminal.line(f"{key} is revoked")
    return Exit.OK


@app.command("sign-out")
def sign_out(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key.", show_default=False)], json: Json = False
) -> int:
    """Sign out every browser that is signed in with a key; the key goes on."""
    terminal = Terminal(json)
    with connect() as husai:
        ended = husai.sign_out(key)
    if json:
        terminal.document(dict(ended.raw))
    terminal.line(f"no browser is signed in with {key} any more")
    return Exit.OK
