"""The calls about artifacts: send, list, read and fetch files, checked by their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from husai import files
from husai.calls import Calls, object_of, segment
from husai.errors import Mismatch
from husai.models import Artifact


class ArtifactCalls(Calls):
    """What can be done with stored files."""

    def upload(self, path: Path, *, name: str | None = None) -> Artifact:
        """Send one file; the service checks that it arrives whole."""
        response = self._transport.request(
            "POST",
            "/v1/artifacts",
            params={"name": name or path.name, "type": "upload"},
            content=lambda: files.chunks(path),
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(path.stat().st_size),
                "Content-Digest": files.content_digest(files.sha256(path)),
            },
            repeatable=True,
            timeout=300.0,
        )
        return Artifact.read(object_of(response))

    def upload_files(self, paths: Mapping[str, Path]) -> Artifact:
        """Send several files, by the names they shall have, as one artifact; a name with slashes lies in folders."""
        if len(paths) == 1:
            ((name, path),) = paths.items()
            return self.upload(path, name=PurePosixPath(name).name)
        blobs = {}
        for name, path in paths.items():
            (blob,) = self.upload(path, name=PurePosixPath(name).name).files.values()
            blobs[name] = blob["sha256"]
        body = {"type": "upload", "files": blobs}
        return Artifact.read(self._json("POST", "/v1/artifacts/trees", json=body, repeatable=True))

    def artifacts(self, *, type: str | None = None) -> Iterator[Artifact]:
        """Artifacts, newest first, without their file lists."""
        return self._pages("/v1/artifacts", Artifact, type=type)

    def artifact(self, sha256: str) -> Artifact:
        """Type and files of one artifact, named by its digest or the first digits of it.

        Raises:
            Mismatch: this is the digest of something else.
        """
        content = self.read(sha256)
        try:
            index = json.loads(content)
            size = sum(file["size"] for file in index["files"].values())
            return Artifact.read({"sha256": hashlib.sha256(content).hexdigest(), "size": size, **index})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Mismatch(f"{sha256} is a file, not an artifact") from None

    def read(self, sha256: str) -> bytes:
        """The bytes of one small file, named by its digest, or of an artifact's index, by the first digits of it.

        Raises:
            Mismatch: what the service sent has another digest.
        """
        body = self._transport.request("GET", f"/v1/artifacts/{segment(sha256)}").content
        if not hashlib.sha256(body).hexdigest().startswith(sha256):
            raise Mismatch(f"the bytes of {sha256} have another digest")
        return body

    def download(self, sha256: str, path: Path) -> Path:
        """Write one file, found by its digest, to `path`; checks the digest and resumes a broken connection."""
        return files.download(self._transport, sha256, path)

    def fetch(self, sha256: str, directory: Path) -> list[Path]:
        """Write the files of an artifact into a directory."""
        index = self.artifact(sha256).files
        return [self.download(entry["sha256"], files.inside(directory, name)) for name, entry in index.items()]
