"""Ids and digests in paths, which may be shortened to their first eight digits or more.

These ask for a key only to complete what is shortened; every endpoint asks for one besides.
"""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.deps import Context, bearer, context, holder
from services.accounts import Principal
from services.queries import ids

ID = Path(pattern=r"^[0-9a-f]{8,24}$", description="an id, or its first 8 digits or more")
DIGEST = Path(pattern=r"^[0-9a-f]{8,64}$", description="a SHA-256, or its first 8 digits or more")


Resolve = Callable[[Session, Context, Principal], str]


async def _whole(request: Request, text: str, length: int, resolve: Resolve) -> str:
    """What a path says, completed where it is shortened; a whole id costs no thread and no query."""
    if len(text) == length:
        return text
    shared = await context(request)
    caller = await holder(request, await bearer(request))

    def read() -> str:
        with shared.database.read() as session:
            return resolve(session, shared, caller)

    return await run_in_threadpool(read)


async def _job(request: Request, job_id: Annotated[str, ID]) -> str:
    return await _whole(request, job_id, ids.ID, lambda session, _, caller: ids.job(session, caller, job_id))


async def _key(request: Request, key_id: Annotated[str, ID]) -> str:
    return await _whole(request, key_id, ids.ID, lambda session, _, caller: ids.key(session, caller, key_id))


async def _decision(request: Request, decision_id: Annotated[str, ID]) -> str:
    def resolve(session: Session, shared: Context, caller: Principal) -> str:
        return ids.decision(session, shared.settings, caller, decision_id)

    return await _whole(request, decision_id, ids.ID, resolve)


async def _artifact(request: Request, sha256: Annotated[str, DIGEST]) -> str:
    def resolve(session: Session, shared: Context, caller: Principal) -> str:
        return ids.artifact(session, shared.settings, caller, sha256)

    return await _whole(request, sha256, ids.DIGEST, resolve)


async def _candidate(request: Request, candidate: Annotated[str, DIGEST]) -> str:
    def resolve(session: Session, shared: Context, caller: Principal) -> str:
        return ids.candidate(session, shared.settings, caller, candidate)

    return await _whole(request, candidate, ids.DIGEST, resolve)


JobPath = Annotated[str, Depends(_job)]
KeyPath = Annotated[str, Depends(_key)]
DecisionPath = Annotated[str, Depends(_decision)]
ArtifactPath = Annotated[str, Depends(_artifact)]
CandidatePath = Annotated[str, Depends(_candidate)]
"""What stands in a path, as the whole id or digest of something that the caller may see."""
