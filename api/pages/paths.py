"""Ids and digests in the addresses of pages, which may be shortened as those of `/v1`."""

from typing import Annotated

from fastapi import Depends

from api.deps import Ctx
from api.ids import DIGEST, ID
from api.pages.shell import Seen
from services.queries import ids


def _job(job_id: Annotated[str, ID], context: Ctx, visitor: Seen) -> str:
    with context.database.read() as session:
        return ids.job(session, visitor.principal, job_id)


def _key(key_id: Annotated[str, ID], context: Ctx, visitor: Seen) -> str:
    with context.database.read() as session:
        return ids.key(session, visitor.principal, key_id)


def _decision(decision_id: Annotated[str, ID], context: Ctx, visitor: Seen) -> str:
    with context.database.read() as session:
        return ids.decision(session, context.settings, visitor.principal, decision_id)


def _candidate(candidate: Annotated[str, DIGEST], context: Ctx, visitor: Seen) -> str:
    with context.database.read() as session:
        return ids.candidate(session, context.settings, visitor.principal, candidate)


JobPath = Annotated[str, Depends(_job)]
KeyPath = Annotated[str, Depends(_key)]
DecisionPath = Annotated[str, Depends(_decision)]
CandidatePath = Annotated[str, Depends(_candidate)]
"""What stands in an address, as the whole id or digest of something that the visitor may see."""
