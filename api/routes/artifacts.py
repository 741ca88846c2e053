"""Upload and fetch immutable files by digest."""

import base64
import binascii
import hashlib
import re
import tempfile
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Literal

from fastapi import Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api import fields, paging, schemas, serializers
from api.deps import Context, Ctx, Reader, Submitter, v1_router
from api.http import (
    CHUNK,
    IMMUTABLE,
    IfNoneMatch,
    IfRange,
    Range,
    byte_range,
    bytes_response,
    content,
    unless_matched,
)
from api.ids import ArtifactPath
from husai_core.job import ArtifactType
from services import artifacts, tables
from services.accounts import Principal
from services.problems import Problem, invalid, not_found
from services.queries import access
from services.queries import artifacts as artifact_queries
from services.queries import jobs as job_queries

router = v1_router("artifacts", "/artifacts")
UPLOAD = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}}
HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""Artifacts share their origin with the pages: a browser stores them and runs nothing that is in them."""
ContentDigest = Annotated[str, Header(max_length=200, description="RFC 9530: `sha-256=:<base64>:`")]


@router.post("", status_code=201, openapi_extra=UPLOAD)
async def upload(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Submitter,
    name: Annotated[fields.FileName, Query()],
    content_digest: ContentDigest,
    type: Literal["upload"] = "upload",
) -> schemas.Artifact:
    """Store one file, sent as the raw body, if its digest is the declared one."""
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/octet-stream":
        detail = "Send the file itself as application/octet-stream."
        raise Problem(415, "unsupported-media-type", "Unsupported media type", detail)
    declared = _declared(content_digest)
    with tempfile.TemporaryFile(dir=context.settings.root) as file:
        size, actual = await _receive(request, file)
        if actual != declared:
            detail = f"The body has SHA-256 {actual}, not {declared}."
            raise invalid("digest-mismatch", "Digest mismatch", detail)
        file.seek(0)
        await run_in_threadpool(context.store.put, file, actual)
    entry = schemas.FileEntry(sha256=actual, size=size)
    return await run_in_threadpool(_register, context, principal, response, {name: entry})


def _declared(header: str) -> str:
    """The SHA-256 that a `Content-Digest` header names.

    Raises:
        Problem: 422 `invalid-request`.
    """
    digest = re.search(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{44}):", header)
    try:
        return base64.b64decode(digest[1], validate=True).hex() if digest else _no_digest()
    except binascii.Error:
        return _no_digest()


def _no_digest() -> str:
    raise invalid("invalid-request", "Invalid request", "content-digest: must be sha-256=:<base64 of the digest>:")


async def _receive(request: Request, file: BinaryIO) -> tuple[int, str]:
    """Write the body to a file piece by piece; returns its size and SHA-256."""
    hashed, size = hashlib.sha256(), 0
    async for piece in request.stream():
        hashed.update(piece)
        size += len(piece)
        await run_in_threadpool(file.write, piece)
    return size, hashed.hexdigest()


def _register(
    context: Context, principal: Principal, response: Response, files: dict[str, schemas.FileEntry]
) -> schemas.Artifact:
    index = {"type": "upload", "files": {name: entry.model_dump() for name, entry in sorted(files.items())}}
    stored = artifacts.store_index(context.store, index)
    with context.write() as session:
        known = artifacts.register(session, stored, principal.owner_id)
        if known.owner_id != principal.owner_id:
            session.merge(tables.Upload(sha256=stored.sha256, owner_id=principal.owner_id))
    response.headers["Location"] = f"/v1/artifacts/{stored.sha256}"
    return schemas.Artifact(sha256=stored.sha256, type=stored.type, size=stored.size, files=files)


@router.post("/trees", status_code=201)
def make_tree(body: schemas.TreeRequest, response: Response, context: Ctx, principal: Submitter) -> schemas.Artifact:
    """Make one artifact of files that were uploaded one by one."""
    files = {}
    for name, digest in body.files.items():
        if not _open_to(context, principal, digest):
            raise invalid("unknown-artifact", "Unknown artifact", f"files.{name}: no file {digest} was uploaded.")
        files[name] = schemas.FileEntry(sha256=digest, size=context.store.size(digest))
    return _register(context, principal, response, files)


@router.get("")
def listing(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Reader,
    type: ArtifactType | None = None,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> schemas.Artifacts:
    """Artifacts, newest first: everybody's where the lab shares results, otherwise yours."""
    after = paging.after(cursor, artifact_queries.KEY)
    with context.database.read() as session:
        rows, last = artifact_queries.page(session, context.settings, principal, type=type, after=after, limit=limit)
        jobs = job_queries.visible(session, principal, {row.execution_id for row in rows})
    items = [
        schemas.ArtifactRow(
            sha256=row.sha256, type=row.type, size=row.size, job=jobs.get(row.execution_id or ""),
            created_at=serializers.rfc3339(row.created_at),
        )
        for row in rows
    ]  # fmt: skip
    return schemas.Artifacts(items=items, next=paging.link_next(request, response, last))


BYTES = content("application/octet-stream", "The bytes of a file, or an artifact's index as JSON")


@router.head("/{sha256}", response_class=Response, responses=BYTES)
@router.get("/{sha256}", response_class=Response, responses=BYTES)
def read(
    request: Request,
    sha256: ArtifactPath,
    context: Ctx,
    principal: Reader,
    if_none_match: IfNoneMatch = None,
    range: Range = None,
    if_range: IfRange = None,
) -> Response:
    """A file, or an artifact's index, by digest. It never changes, so caches may keep it."""
    if not _open_to(context, principal, sha256):
        raise not_found("artifact", sha256)
    with context.database.read() as session:
        is_index = session.get(tables.ArtifactRow, sha256) is not None
    media_type = "application/json" if is_index else "application/octet-stream"
    headers = {"ETag": f'"{sha256}"', "Cache-Control": IMMUTABLE, **HARMLESS}
    headers["Content-Disposition"] = f'attachment; filename="{sha256[:12]}{".json" if is_index else ""}"'

    def answer() -> Response:
        size = context.store.size(sha256)
        if request.method == "HEAD":
            described = {"Accept-Ranges": "bytes", "Content-Length": str(size)}
            return Response(None, 200, described, media_type)
        span = byte_range(range, size, if_range, headers["ETag"])
        return bytes_response(size, span, lambda start, end: _pieces(context, sha256, start, end), media_type, {})

    return unless_matched(if_none_match, headers["ETag"], answer, headers)


def _open_to(context: Context, principal: Principal, digest: str) -> bool:
    """True when the blob is stored and the caller may see it."""
    with context.database.read() as session:
        return context.store.exists(digest) and access.blob(context.settings, context.store, session, principal, digest)


def _pieces(context: Context, digest: str, start: int, end: int) -> Iterator[bytes]:
    with context.store.open(digest) as blob:
        blob.seek(start)
        while start < end and (piece := blob.read(min(CHUNK, end - start))):
            yield piece
            start += len(piece)
