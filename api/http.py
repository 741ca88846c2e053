"""HTTP semantics that several endpoints share: conditional requests, single byte ranges, streamed bytes."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from fastapi import Header, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.problems import Problem

CHUNK = 1 << 18
IMMUTABLE = "private, max-age=31536000, immutable"

IfNoneMatch = Annotated[str | None, Header()]
IfRange = Annotated[str | None, Header(description="the range is sent only of this version, else the whole")]
Range = Annotated[str | None, Header()]
LONGEST = 1000
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
IdempotencyKey = Annotated[str | None, Header(pattern=IDEMPOTENCY_KEY, description="makes a retry harmless")]
NamePath = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""The name of a kind or a policy. It becomes part of ETags, and a header holds ASCII only."""


def reply(document: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as JSON."""
    return Response(document.model_dump_json(), status, headers, "application/json")


def matches(if_none_match: str | None, etag: str) -> bool:
    """True when the client already has this version (weak comparison, RFC 9110); a long header is ignored."""
    if if_none_match is None or len(if_none_match) > LONGEST:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


def unless_matched(
    if_none_match: str | None, etag: str, answer: Callable[[], Response], headers: Mapping[str, str] | None = None
) -> Response:
    """304 when the client has this version, else the answer; both carry the ETag."""
    response = Response(status_code=304) if matches(if_none_match, etag) else answer()
    response.headers.update({"ETag": etag, **(headers or {})})
    return response


def byte_range(
    header: str | None, size: int, if_range: str | None = None, etag: str | None = None
) -> tuple[int, int] | None:
    """Start and end (exclusive) of a single range.

    None for the whole: also when the header is not understood, or when `If-Range` names another version.

    Raises:
        Problem: 416 `range-not-satisfiable`.
    """
    matched = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header or "")
    if matched is None or matched.group() == "bytes=-" or if_range not in (None, etag):
        return None
    first, last = matched.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    if start >= size:
        headers = {"Content-Range": f"bytes */{size}"}
        detail = f"There are {size} bytes."
        raise Problem(416, "range-not-satisfiable", "Range not satisfiable", detail, headers=headers)
    return start, min(size, int(last) + 1) if first and last else size


def bytes_response(
    size: int,
    span: tuple[int, int] | None,
    read: Callable[[int, int], Iterator[bytes]],
    media_type: str,
    headers: Mapping[str, str],
) -> Response:
    """200 with everything or 206 with one range; `read(start, end)` gives the bytes."""
    start, end = span or (0, size)
    described = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if span:
        described["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(read(start, end), 206 if span else 200, described, media_type)


def content(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of an endpoint that answers with bytes, wholly or in part."""
    body = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": description, "content": body},
        206: {"description": "The range that was asked for", "content": body},
        304: {"description": "Not modified"},
    }
