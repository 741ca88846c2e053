"""Checking a decision without the service, and the version."""

from __future__ import annotations

import json as jsonlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from husai.commands.options import Json
from husai.errors import Exit, Usage
from husai.terminal import Terminal

app = typer.Typer()


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle.json.", show_default=False)],
    public_key: Annotated[
        Path | None,
        typer.Option(help="File with keys that you trust (PEM, or base64), as `husai keys signing` prints them."),
    ] = None,
    json: Json = False,
) -> int:
    """Recompute a decision from its bundle, offline; exit 6 if anything does not hold."""
    from husai_core.release.bundle import verify as check

    terminal, document = Terminal(json), _document(bundle)
    report = check(document, _expected(document, _keys(public_key)) if public_key else None)
    if json:
        terminal.document(report.model_dump(mode="json"))
    for problem in report.problems:
        terminal.paragraph(f"does not hold: {problem}")
    if report.ok:
        word = "verified" if report.trusted else "matches its own figures, signer unknown"
        terminal.paragraph(f"{word}: {report.verdict} for candidate {report.candidate}")
        terminal.paragraph(_policy(document))
        if report.trusted:
            terminal.paragraph(f"signed by {report.keyid}, a key that you trust")
        else:
            terminal.paragraph(
                f"signed by {report.keyid}, which anybody may have made; "
                "check it with --public-key, against what `husai keys signing` prints"
            )
    return Exit.OK if report.ok else Exit.MISMATCH


def _policy(document: Mapping[str, Any]) -> str:
    """Which policy decided, and whether it is the packaged one of its name."""
    from husai_core.release import policy as policies

    policy = policies.Policy.model_validate(document["policy"])
    if policy.name not in policies.names():
        text = f"policy '{policy.name}' does not come with husai: read its rules in the bundle"
    elif policy.digest != policies.load(policy.name).digest:
        text = f"policy '{policy.name}' is not the packaged {policy.name}: read its rules in the bundle"
    else:
        text = f"policy '{policy.name}' as it comes with husai"
    return f"{text} (digest {policy.digest})"


def _expected(document: Mapping[str, Any], keys: Sequence[bytes]) -> bytes:
    """The trusted key that a bundle names as its own, else any of them, which it then fails."""
    from base64 import b64encode

    return next((key for key in keys if b64encode(key).decode() == document.get("public_key")), keys[0])


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


def _keys(path: Path) -> list[bytes]:
    """The raw Ed25519 keys in a file: PEM blocks, or base64 one a line.

    Raises:
        Usage: there are none, or something else is there.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        text = ""
    blocks = re.findall(r"-----BEGIN [^-]+-----.*?-----END [^-]+-----", text, re.DOTALL)
    try:
        keys = [_raw(word) for word in blocks or text.split()]
    except ValueError:
        keys = []
    if not keys:
        raise Usage(f"{path} holds no Ed25519 public key")
    return keys


def _raw(text: str) -> bytes:
    """The 32 bytes of a key in PEM or base64.

    Raises:
        ValueError: it is neither.
    """
    from base64 import b64decode

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not text.startswith("-----"):
        raw = b64decode(text, validate=True)
    else:
        key = load_pem_public_key(text.encode())
        raw = key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else b""
    if len(raw) != 32:
        raise ValueError("a key has 32 bytes")
    return raw


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
