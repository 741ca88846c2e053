"""API keys: list, create, revoke."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from husai.commands.options import Json
from husai.connect import connect
from husai.errors import Exit
from husai.terminal import Terminal

app = typer.Typer(help="API keys (making one needs the scope admin).", no_args_is_help=False)


@app.command("list")
def list_keys(json: Json = False) -> int:
    """List keys, without their secrets."""
    terminal = Terminal(json)
    with connect() as husai:
        keys = husai.keys()
    if json:
        terminal.document({"items": [dict(key.raw) for key in keys]})
    rows = ((k.id, k.name, k.owner, k.prefix, " ".join(k.scopes), k.expires_at, k.revoked_at) for k in keys)
    terminal.table(["id", "name", "owner", "prefix", "scopes", "expires", "revoked"], rows)
    return Exit.OK


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, submit, gate or admin; may be repeated. [default: read]")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whose key it is; made if new. [default: yours]")] = None,
    role: Annotated[Literal["researcher", "ci", "admin"] | None, typer.Option(help="Role of a new owner.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until the key expires. [default: never]")] = None,
    json: Json = False,
) -> int:
    """Make a key and print its token, which is shown only this once."""
    terminal = Terminal(json)
    with connect() as husai:
        key = husai.create_key(name, scope or ["read"], owner=owner, role=role, expires_in_days=days)
    if json:
        terminal.document(dict(key.raw))
    terminal.line(key.token or "")
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
