"""What a directory is as an artifact, before anything is stored or known to a database."""

import hashlib
from pathlib import Path
from typing import Any

from husai_core.job import ArtifactType


def file_sha256(path: Path) -> str:
    """A file's SHA-256, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def index_tree(type: ArtifactType, directory: Path) -> dict[str, Any]:
    """The index of a directory's files, which need not be stored yet."""
    files = {
        path.relative_to(directory).as_posix(): {"sha256": file_sha256(path), "size": path.stat().st_size}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    return {"type": type, "files": files}
