"""API keys: made by admins, shown once, revoked at any time."""

from fastapi import Depends, Request, Response

from api import operations, paging, serializers
from api.deps import Admin, Ctx, Reader, v1_router
from api.ids import KeyPath
from services import accounts, sessions
from services.db import clock
from services.problems import conflict
from services.queries import jobs as job_queries
from services.queries import keys as key_queries


async def _never_stored(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


router = v1_router("keys", "/keys", dependencies=[Depends(_never_stored)])


@router.get("")
def listing(
    request: Request,
    response: Response,
    context: Ctx,
    principal: Reader,
    cursor: paging.Cursor = None,
    limit: paging.Limit = 50,
) -> operations.Keys:
    """Your keys, newest first; an admin sees everyone's."""
    after = paging.after(cursor, key_queries.KEY)
    with context.database.read() as session:
        rows, last = key_queries.page(session, principal, after=after, limit=limit)
        owners = job_queries.owner_names(session, {row.owner_id for row in rows})
        browsers = sessions.counts(session, [row.id for row in rows])
    items = [serializers.key(row, owners[row.owner_id], browsers.get(row.id, 0)) for row in rows]
    return operations.Keys(items=items, next=paging.link_next(request, response, last))


@router.post("", status_code=201)
def make(body: operations.KeyRequest, context: Ctx, principal: Admin) -> operations.NewKey:
    """Make a key. Its token is in this answer and nowhere else."""
    with context.write() as session:
        owner = accounts.create_owner(session, body.owner or principal.owner, body.role or "researcher")
        if body.role not in (None, owner.role):
            detail = f"{owner.name} is {owner.role}, not {body.role}."
            raise conflict("wrong-role", "Wrong role", detail)
        beyond = sorted(set(body.scopes) - set(accounts.ROLES[owner.role]))
        if beyond:
            detail = f"{owner.name} is {owner.role}, which does not allow: {', '.join(beyond)}."
            raise conflict("wrong-role", "Wrong role", detail)
        days = body.expires_in_days
        expires = None if days is None else clock(session) + days * 86_400
        row, token = accounts.create_key(session, context.mac_key, owner.id, body.name, list(body.scopes), expires)
        return operations.NewKey(**serializers.key(row, owner.name).model_dump(), token=token)


@router.delete("/{key_id}", response_model=operations.Key)
def revoke(key_id: KeyPath, context: Ctx, principal: Reader) -> operations.Key:
    """Make a key useless from now on."""
    with context.write() as session:
        row = accounts.revoke(session, principal, key_id)
        session.flush()
        owner = job_queries.owner_names(session, {row.owner_id})[row.owner_id]
        document = serializers.key(row, owner)
    context.forget_keys()
    return document


@router.delete("/{key_id}/browsers", response_model=operations.Key)
def sign_out(key_id: KeyPath, context: Ctx, principal: Reader) -> operations.Key:
    """Sign out every browser that is signed in with a key. The key goes on."""
    with context.write() as session:
        row = accounts.ruled(session, principal, key_id)
        sessions.end_all(session, row.id)
        return serializers.key(row, job_queries.owner_names(session, {row.owner_id})[row.owner_id])
