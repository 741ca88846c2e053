"""Ids and digests in paths, which may be shortened to their first eight digits or more."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.deps import Context, Ctx, Holder
from services.queries import ids

ID = Path(pattern=r"^[0-9a-f]{8,24}$", description="an id, or its first 8 digits or more")
DIGEST = Path(pattern=r"^[0-9a-f]{8,64}$", description="a SHA-256, or its first 8 digits or more")


async def _whole(context: Context, text: str, length: int, resolve: Callable[[Session], str]) -> str:
    """What a path says, completed where it is shortened; a whole id costs no thread and no query."""
    if len(text) == length:
        return text

    def read() -> str:
        with context.database.read() as session:
            return resolve(session)

    return await run_in_threadpool(read)


async def _job(job_id: Annotated[str, ID], context: Ctx, caller: Holder) -> str:
    return await _whole(context, job_id, ids.ID, lambda session: ids.job(session, caller, job_id))


async def _key(key_id: Annotated[str, ID], context: Ctx, caller: Holder) -> str:
    return await _whole(context, key_id, ids.ID, lambda session: ids.key(session, caller, key_id))


async def _decision(decision_id: Annotated[str, ID], context: Ctx, caller: Holder) -> str:
    settings = context.settings
    return await _whole(
        context, decision_id, ids.ID, lambda session: ids.decision(session, settings, caller, decision_id)
    )


async def _artifact(sha256: Annotated[str, DIGEST], context: Ctx, caller: Holder) -> str:
    settings = context.settings
    return await _whole(context, sha256, ids.DIGEST, lambda session: ids.artifact(session, settings, caller, sha256))


async def _candidate(candidate: Annotated[str, DIGEST], context: Ctx, caller: Holder) -> str:
    settings = context.settings
    return await _whole(
        context, candidate, ids.DIGEST, lambda session: ids.candidate(session, settings, caller, candidate)
    )


JobPath = Annotated[str, Depends(_job)]
KeyPath = Annotated[str, Depends(_key)]
DecisionPath = Annotated[str, Depends(_decision)]
ArtifactPath = Annotated[str, Depends(_artifact)]
CandidatePath = Annotated[str, Depends(_candidate)]
"""What stands in a path, as the whole id or digest of something that the caller may see."""
