"""The content-addressed store. A blob is a file named by its SHA-256; an artifact is an index of blobs.

The index, `{"type", "files": {name: {"sha256", "size"}}}` in canonical JSON, is itself a blob, and its digest is the
artifact's. Equal files give equal artifacts, whoever makes them.
"""

import errno
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core.artifact_index import file_sha256
from husai_core.identity import canonical, sha256
from husai_core.job import ArtifactType
from services.db import clock
from services.failpoints import failpoint
from services.problems import not_found
from services.tables import ArtifactRow, Execution, Output

PROBE = bytes(1 << 16)
ABANDONED_SECONDS = 86_400
"""A file that grew no more for so long is nobody's."""


@dataclass(frozen=True)
class Stored:
    """An artifact's digest, its type, and the bytes of its files together."""

    sha256: str
    type: ArtifactType
    size: int


def _idle() -> None:
    """What is done between two pieces of a file if nobody asks for anything."""


class Store:
    """Blobs below one fsspec URL. On a local disk a blob appears whole or not at all."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.url_to_fs(url)
        self.is_local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def path(self, digest: str) -> str:
        """Where a blob lies."""
        return f"{self.root}/{digest[:2]}/{digest[2:]}"

    def exists(self, digest: str) -> bool:
        """True when the blob is stored."""
        return bool(self.fs.exists(self.path(digest)))

    def size(self, digest: str) -> int:
        """A blob's size in bytes."""
        return int(self.fs.size(self.path(digest)))

    def open(self, digest: str) -> BinaryIO:
        """A blob opened for reading.

        Raises:
            Problem: `unknown-artifact`.
        """
        try:
            return cast(BinaryIO, self.fs.open(self.path(digest), "rb"))
        except FileNotFoundError:
            raise not_found("artifact", digest) from None

    def read(self, digest: str) -> bytes:
        """A small blob's bytes."""
        with self.open(digest) as blob:
            return blob.read()

    def put_bytes(self, data: bytes) -> str:
        """Store bytes; returns their digest."""
        digest = sha256(data)
        if not self.exists(digest):
            with self._writing(digest) as file:
                file.write(data)
        return digest

    def put_file(self, source: Path, digest: str | None = None, tick: Callable[[], None] = _idle) -> str:
        """Store a file's content; `digest` saves hashing it again, `tick` is called for every piece."""
        digest = digest or file_sha256(source)
        with source.open("rb") as data:
            self.put(data, digest, tick)
        return digest

    def put(self, data: BinaryIO, digest: str, tick: Callable[[], None] = _idle) -> None:
        """Store what is left to read of an open file whose digest is known."""
        if not self.exists(digest):
            with self._writing(digest) as file:
                _copy(data, file, tick)

    def probe(self) -> None:
        """Write a little, read it back and delete it.

        Raises:
            OSError: the store cannot be used.
        """
        name = f"{self.root}/tmp/probe-{uuid.uuid4().hex}"
        if self.is_local:
            Path(self.root, "tmp").mkdir(parents=True, exist_ok=True)
        try:
            with self.fs.open(name, "wb") as file:
                file.write(PROBE)
                file.flush()
                if self.is_local:
                    os.fsync(file.fileno())
            if self.fs.cat_file(name) != PROBE:
                raise OSError(errno.EIO, "the store gives back something else than was written")
        finally:
            with suppress(OSError):
                self.fs.rm(name)

    def sweep(self) -> None:
        """Delete what processes that died while they wrote left on a local disk."""
        for path in Path(self.root, "tmp").glob("*") if self.is_local else ():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()

    @contextmanager
    def _writing(self, digest: str) -> Iterator[BinaryIO]:
        """A file that becomes the blob `digest` when it is closed: written, synced, renamed."""
        final = self.path(digest)
        if not self.is_local:
            try:
                with self.fs.open(final, "wb") as remote:
                    yield remote
            except BaseException:  # closing published what was written so far
                with suppress(OSError):
                    self.fs.rm(final)
                raise
            return
        temporary = Path(self.root, "tmp", uuid.uuid4().hex)
        for folder in (temporary.parent, Path(final).parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            failpoint("blob.written")
            temporary.rename(final)
        except BaseException:  # on a full disk it would keep what is lacking
            with suppress(OSError):
                temporary.unlink()
            raise
        failpoint("blob.renamed")


def _copy(data: BinaryIO, file: BinaryIO, tick: Callable[[], None]) -> None:
    while piece := data.read(1 << 22):
        file.write(piece)
        tick()


def store_tree(store: Store, index: dict[str, Any], directory: Path, tick: Callable[[], None] = _idle) -> Stored:
    """Store every file of an indexed directory, then the index; `tick` is called again and again meanwhile."""
    for name, entry in index["files"].items():
        tick()
        store.put_file(directory / name, entry["sha256"], tick)
    return store_index(store, index)


def store_index(store: Store, index: dict[str, Any]) -> Stored:
    """Store the index of blobs that are stored already."""
    size = sum(entry["size"] for entry in index["files"].values())
    return Stored(store.put_bytes(canonical(index)), index["type"], size)


def read_index(store: Store, digest: str) -> dict[str, Any]:
    """An artifact's index.

    Raises:
        Problem: `unknown-artifact`, also for a blob that is no index.
    """
    try:
        index = json.loads(store.read(digest))
        return {"type": index["type"], "files": dict(index["files"])}
    except (ValueError, KeyError, TypeError):
        raise not_found("artifact", digest) from None


def read_json(store: Store, digest: str, name: str) -> Any:
    """One JSON file of an artifact."""
    return json.loads(store.read(read_index(store, digest)["files"][name]["sha256"]))


def read_files(store: Store, digest: str) -> dict[str, bytes]:
    """All files of a small artifact."""
    return {name: store.read(entry["sha256"]) for name, entry in read_index(store, digest)["files"].items()}


def materialise(store: Store, digest: str, directory: Path, tick: Callable[[], None] = _idle) -> None:
    """Lay an artifact's files out in a directory: links on a local store, copies from a remote one."""
    for name, entry in read_index(store, digest)["files"].items():
        tick()
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if store.is_local:
            target.symlink_to(store.path(entry["sha256"]))
        else:
            with store.open(entry["sha256"]) as data, target.open("wb") as file:
                _copy(data, file, tick)


def register(session: Session, stored: Stored, owner_id: str, execution_id: str | None = None) -> ArtifactRow:
    """Make a stored artifact known; the first producer stays its producer."""
    row = session.get(ArtifactRow, stored.sha256)
    if row is None:
        row = ArtifactRow(
            sha256=stored.sha256, type=stored.type, size=stored.size,
            execution_id=execution_id, owner_id=owner_id, created_at=clock(session),
        )  # fmt: skip
        session.add(row)
        session.flush()
    return row


def productions(session: Session, artifact: ArtifactRow, owner_id: str | None) -> list[float]:
    """When jobs, of one owner or of any, made an artifact, in order; when it became known if none did."""
    instants = (
        select(Execution.finished_at)
        .join(Output, Output.execution_id == Execution.id)
        .where(Output.sha256 == artifact.sha256)
        .order_by(Execution.finished_at)
    )
    if owner_id is not None:
        instants = instants.where(Execution.owner_id == owner_id)
    return [at for at in session.scalars(instants) if at is not None] or [artifact.created_at]
