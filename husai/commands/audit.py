"""Checks of what the service keeps."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from husai.commands.options import Json
from husai.connect import connect
from husai.errors import Exit, Usage
from husai.terminal import Terminal

if TYPE_CHECKING:
    from husai.client import Husai

app = typer.Typer(help="Checks of what the service keeps.")


@app.callback()
def group() -> None:
    """Checks of what the service keeps."""


@app.command()
def chain(
    anchor: Annotated[
        Path | None, typer.Option(help="A head that was exported earlier: it must still be in the chain.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help="Write the present head to this file, to keep elsewhere.")] = None,
    json: Json = False,
) -> int:
    """Check that no decision was deleted, reordered or changed; exit 6 if one was."""
    terminal = Terminal(json)
    before = _anchor(anchor) if anchor else None
    with connect() as husai:
        report = husai.chain()
        problems = list(report["problems"])
        if before:
            problems += _against(husai, report, before)
    if export:
        head = {"length": report["length"], "head": report["head"]}
        export.write_text(jsonlib.dumps(head) + "\n", encoding="utf-8")
    if json:
        terminal.document({**report, "ok": not problems, "problems": problems})
    for problem in problems:
        terminal.paragraph(f"does not hold: {problem}")
    if not problems:
        kept = f", and still holds the {before['length']} of {anchor}" if before else ""
        terminal.paragraph(f"the chain of {report['length']} decisions is whole{kept}; its head is {report['head']}")
    return Exit.MISMATCH if problems else Exit.OK


def _anchor(path: Path) -> dict[str, Any]:
    """An exported head.

    Raises:
        Usage: the file holds something else.
    """
    try:
        document = jsonlib.loads(path.read_bytes())
        return {"length": int(document["length"]), "head": str(document["head"])}
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise Usage(f"{path} is not a head that `husai audit chain --export` wrote") from None


def _against(husai: Husai, report: dict[str, Any], anchor: dict[str, Any]) -> list[str]:
    """What contradicts an anchor: a chain that is shorter, or whose decision at that place is another one."""
    from husai_core.release.bundle import Bundle, chain_hash

    length, head = anchor["length"], anchor["head"]
    if length > report["length"]:
        return [f"the chain had {length} decisions when the anchor was made, and has {report['length']} now"]
    if length == report["length"] or length == 0:
        present = report["head"] if length else head
    else:
        decision = next((d for d in husai.decisions() if d.seq == length), None)
        if decision is None:
            return [f"decision {length}, the last one of the anchor, is gone"]
        present = chain_hash(Bundle.model_validate(husai.bundle(decision.id)))
    return [] if present == head else [f"decision {length} is not the one that the anchor names"]
