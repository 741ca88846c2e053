"""Files over HTTP: digests of what is sent, checked downloads that resume."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import httpx

from husai.errors import Mismatch
from husai.transport import Backoff, Transport

CHUNK = 1 << 20


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a file in pieces of 1 MiB."""
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(hexadecimal: str) -> str:
    """The `Content-Digest` header (RFC 9530) for a SHA-256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(hexadecimal)).decode()}:"


def inside(directory: Path, name: str) -> Path:
    """Where a file of an artifact goes.

    Raises:
        Mismatch: the name would lead out of the directory.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise Mismatch(f"an artifact names a file {name!r}, which is no place inside a directory")
    return directory.joinpath(*parts)


def download(transport: Transport, sha: str, path: Path) -> Path:
    """Write the bytes of one digest to `path`, which appears only when they are complete and right.

    A connection that breaks is resumed where it stopped.

    Raises:
        Mismatch: the bytes do not have this digest.
        Unavailable: the service stayed away for too long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _fetch(transport, sha, unfinished)
        if sha256(unfinished) != sha:
            raise Mismatch(f"the bytes of {sha} have another digest")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _fetch(transport: Transport, sha: str, unfinished: Path) -> None:
    retry = Backoff(transport.patience)
    unfinished.unlink(missing_ok=True)
    while True:
        done = unfinished.stat().st_size if unfinished.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        try:
            with transport.stream(f"/v1/artifacts/{sha}", headers) as response:
                resumed = bool(done) and response.status_code == 206
                with unfinished.open("ab" if resumed else "wb") as file:
                    for piece in response.iter_raw():
                        file.write(piece)
                        retry.reset()
            return
        except httpx.HTTPError as error:
            if not retry.sleep():
                raise transport.unavailable(error) from error
