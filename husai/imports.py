"""Sending files, and asking for their import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from husai.collect import collect
from husai.errors import Usage
from husai.terminal import Terminal, size

if TYPE_CHECKING:
    from husai.client import Husai
    from husai.models import Artifact, Job

REGISTRY = "saelens:"
"""How the name of an SAE of SAELens' registry begins."""


def submit_import(husai: Husai, paths: Mapping[str, Path], spec: Mapping[str, Any], terminal: Terminal) -> Job:
    """Ask for an import of files, which are sent only if the spec is accepted, or of what the spec names."""
    inputs: dict[str, list[str]] = {}
    if paths:
        husai.plan("data.import", spec)
        stored = send(husai, paths, terminal)
        terminal.note(f"uploaded as {stored.sha256}; what is imported from it has SHA-256s of its own")
        inputs = {"file": [stored.sha256]}
    return husai.submit("data.import", spec, inputs=inputs)


def registry_names(files: Sequence[Path]) -> list[str]:
    """The names of SAEs of SAELens' registry; nothing if these are files.

    Raises:
        Usage: some are, and some are not.
    """
    texts = [path.as_posix() for path in files]
    names = [text.removeprefix(REGISTRY) for text in texts if text.startswith(REGISTRY)]
    if names and len(names) < len(texts):
        raise Usage(f"files and {REGISTRY} names are imported by commands of their own")
    return names


def collected(files: Sequence[Path], terminal: Terminal) -> dict[str, Path]:
    """Files by the names under which they are sent; what is left out is noted.

    Raises:
        Usage: a file is not there, or there are too many, or none.
    """
    paths, left_out = collect(list(files))
    if left_out:
        terminal.note(f"left out: {', '.join(left_out)}")
    return paths


def send(husai: Husai, paths: Mapping[str, Path], terminal: Terminal) -> Artifact:
    """Store files as one upload."""
    for name, path in paths.items():
        terminal.note(f"sending {name} ({size(path.stat().st_size)})")
    return husai.upload_files(paths)
