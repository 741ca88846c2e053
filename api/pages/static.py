"""Style sheets and the script, named with their digests so that browsers may keep them."""

from functools import cache
from importlib import resources

from fastapi import APIRouter, Response

from husai_core.identity import sha256
from husai_core.render.style import STYLE
from services.problems import not_found

router = APIRouter(include_in_schema=False)
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
FILES = ("pages.css", "pages.js", "icon.svg")
IMMUTABLE = "public, max-age=31536000, immutable"


@cache
def content(name: str) -> bytes:
    """The bytes of a file.

    Raises:
        Problem: 404 `unknown-file`.
    """
    if name == "panels.css":
        return STYLE.encode()
    if name not in FILES:
        raise not_found("file", name[:100])
    return resources.files("api").joinpath("static", name).read_bytes()


@cache
def address(name: str) -> str:
    """The address of a file, which changes with it."""
    return f"/static/{name}?v={sha256(content(name))[:16]}"


@router.get("/static/{name}")
def read(name: str, v: str = "") -> Response:
    """A file; one that is asked for by its digest may be kept for ever."""
    data = content(name)
    headers = {"Cache-Control": IMMUTABLE} if v == sha256(data)[:16] else {}
    return Response(data, 200, headers, TYPES[name.rpartition(".")[2]])
