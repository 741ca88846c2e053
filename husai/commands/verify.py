"""Checking a decision without the service, and the version."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from husai.commands.options import Json
from husai.errors import Exit, Usage
from husai.terminal import Terminal

app = typer.Typer()


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle.json.", show_default=False)],
    public_key: Annotated[
        Path | None, typer.Option(help="The signer's key (PEM, or base64 of the raw key), known from elsewhere.")
    ] = None,
    json: Json = False,
) -> int:
    """Recompute a decision from its bundle, offline; exit 6 if anything does not hold."""
    from husai_core.release.bundle import verify as check

    terminal = Terminal(json)
    report = check(_document(bundle), _key(public_key) if public_key else None)
    if json:
        terminal.document(report.model_dump(mode="json"))
    for problem in report.problems:
        terminal.line(f"does not hold: {problem}")
    if report.ok:
        terminal.line(f"verified: {report.verdict} for {report.candidate} by policy {report.policy_digest}")
        signer = f"signed by the given key {report.keyid}" if report.trusted else f"signer {report.keyid} not checked"
        terminal.line(signer if report.trusted else f"{signer} (give --public-key)")
    return Exit.OK if report.ok else Exit.MISMATCH


def _document(path: Path) -> dict[str, object]:
    try:
        document = jsonlib.loads(path.read_bytes())
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Usage(f"{path} is not JSON") from None
    if not isinstance(document, dict):
        raise Usage(f"{path} is not a bundle")
    return document


def _key(path: Path) -> bytes:
    """The raw Ed25519 key in a PEM or base64 file."""
    from base64 import b64decode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        text = path.read_bytes()
        if text.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_public_key(text)
            if isinstance(key, Ed25519PublicKey):
                return key.public_bytes_raw()
        elif len(raw := b64decode(text.strip(), validate=True)) == 32:
            return raw
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        pass
    raise Usage(f"{path} holds no Ed25519 public key")


@app.command()
def version(json: Json = False) -> int:
    """Print the version."""
    from importlib import metadata

    terminal = Terminal(json)
    try:
        number = metadata.version("husai")
    except metadata.PackageNotFoundError:
        number = "unknown (not installed)"
    if json:
        terminal.document({"version": number})
    terminal.line(f"husai {number}")
    return Exit.OK
