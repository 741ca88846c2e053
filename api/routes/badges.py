"""Small pictures that say what a policy decided: public ones, which candidates opt into, and those for key holders."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from api import fields, schemas, serializers
from api.badge import NONE, badge
from api.deps import Ctx, Submitter, v1_router
from api.http import IfNoneMatch, NamePath, unless_matched
from api.ids import CandidatePath
from services.problems import Problem
from services.queries import candidates, decisions, jobs

router = v1_router("gates")
root = APIRouter(tags=["gates"])
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/svg+xml": {}}},
    304: {"description": "Not modified"},
}
PUBLIC = {"Cache-Control": "public, max-age=60"}


@router.post("/candidates/{candidate}/badge")
def set_badge(
    candidate: CandidatePath, body: schemas.BadgeRequest, context: Ctx, principal: Submitter
) -> schemas.Candidate:
    """Let everybody see the verdicts about a candidate as badges, or nobody. For whoever made it, and admins."""
    with context.write() as session:
        row = candidates.get(session, context.settings, context.store, principal, candidate)
        if not (principal.admin or candidates.owner_id(session, row) == principal.owner_id):
            detail = "Only the owner of the job that made a candidate, or an admin, can publish its badge."
            raise Problem(403, "not-owner", "Not the owner", detail)
        row.public_badge = body.public
        return serializers.candidate(row, jobs.visible(session, principal, {row.execution_id}))


@root.get("/badges/{sha256}/{policy}.svg", response_class=Response, responses=PICTURE)
def public_badge(
    sha256: Annotated[str, Path(pattern=fields.SHA256)],
    policy: NamePath,
    context: Ctx,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """What a policy decided last about a candidate. Needs no key; private ones look like unknown ones: no decision."""
    with context.database.read() as session:
        verdict = decisions.public_verdict(session, context.settings, policy, sha256) or NONE
    picture = Response(badge(policy, verdict), media_type="image/svg+xml")
    return unless_matched(if_none_match, f'"{policy}-{verdict}"', lambda: picture, PUBLIC)
