"""The job kinds and what they take."""

from fastapi import Response

from api import kinds, schemas
from api.deps import Reader, v1_router
from api.http import IfNoneMatch, NamePath, reply, unless_matched
from husai_core.identity import sha256
from husai_core.kinds import names

router = v1_router("kinds", "/kinds")


@router.get("", response_model=schemas.Kinds, responses={304: {"description": "Not modified"}})
def listing(principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Every job kind."""
    listed = schemas.Kinds(items=[kinds.document(name) for name in names()])
    etag = f'"{sha256(listed.model_dump_json().encode())[:32]}"'
    return unless_matched(if_none_match, etag, lambda: reply(listed))


@router.get("/{kind}")
def read(kind: NamePath, principal: Reader) -> schemas.Kind:
    """One job kind with the JSON Schemas of its spec and result."""
    return kinds.document(kind)
