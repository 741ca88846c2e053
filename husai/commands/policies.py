"""Release policies: those that come with HUSAI, and the lab's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from husai.commands.options import Json
from husai.connect import connect
from husai.errors import Exit
from husai.models import Policy
from husai.terminal import Terminal, short

app = typer.Typer(help="Release policies; adding and retiring a lab's own needs the scope admin.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy.", show_default=False)]


@app.command("list")
def list_policies(json: Json = False) -> int:
    """List the policies, the newest version of each."""
    terminal = Terminal(json)
    with connect() as husai:
        policies = husai.policies()
    if json:
        terminal.document({"items": [dict(policy.raw) for policy in policies]})
    rows = ((p.name, p.version, len(p.rules), _state(p), short(p.digest), p.title) for p in policies)
    terminal.table(["name", "version", "rules", "state", "digest", "title"], rows, droppable=["title", "digest"])
    return Exit.OK


@app.command()
def show(
    name: Name,
    version: Annotated[int | None, typer.Option(min=1, help="An earlier version. [default: the newest]")] = None,
    json: Json = False,
) -> int:
    """Print a policy as a YAML file, from which another one can be made."""
    terminal = Terminal(json)
    with connect() as husai:
        policy = husai.policy(name, version)
    if json:
        terminal.document(dict(policy.raw))
    terminal.line(f"# {_state(policy)}, digest {policy.digest}")
    for line in _yaml(policy.document).splitlines():
        terminal.line(line)
    return Exit.OK


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON; - is standard input.")],
    json: Json = False,
) -> int:
    """Add a policy of the lab, or a higher version of one."""
    from husai.spec_args import spec_file

    terminal, document = Terminal(json), spec_file(file, "a policy")
    with connect() as husai:
        policy = husai.add_policy(document)
    if json:
        terminal.document(dict(policy.raw))
    terminal.paragraph(f"{policy.name}, version {policy.version}, decides from now on (digest {policy.digest})")
    return Exit.OK


@app.command()
def retire(name: Name, json: Json = False) -> int:
    """Let a policy of the lab decide nothing more; its decisions stay."""
    terminal = Terminal(json)
    with connect() as husai:
        policy = husai.retire_policy(name)
    if json:
        terminal.document(dict(policy.raw))
    terminal.line(f"{policy.name} is retired")
    return Exit.OK


def _state(policy: Policy) -> str:
    """Whose a policy is, or that it decides nothing more."""
    return "comes with husai" if policy.packaged else "retired" if policy.retired_at else "the lab's"


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml

    rules = [{name: value for name, value in rule.items() if value is not None} for rule in document["rules"]]
    return yaml.safe_dump({**document, "rules": rules}, sort_keys=False, allow_unicode=True, width=110)
