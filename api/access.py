"""Whose work a caller may see: everybody's where the lab shares results and for an admin, otherwise their own."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import SQLCoreOperations

from api.deps import Context
from services.accounts import Principal
from services.artifacts import Store, read_index
from services.tables import ArtifactRow, Job, Output, Upload

Column = SQLCoreOperations[Any]


def everything(context: Context, principal: Principal) -> bool:
    """True when nothing is hidden from the caller."""
    return context.settings.share_results or principal.admin


def executions(context: Context, principal: Principal, column: Column) -> ColumnElement[bool]:
    """The condition that `column` names an execution which one of the caller's jobs follows."""
    if everything(context, principal):
        return true()
    return column.in_(select(Job.execution_id).where(Job.owner_id == principal.owner_id))


def artifacts(context: Context, principal: Principal, column: Column) -> ColumnElement[bool]:
    """The condition that `column` names an artifact which the caller uploaded or one of their jobs produced."""
    if everything(context, principal):
        return true()
    owned = select(ArtifactRow.sha256).where(ArtifactRow.owner_id == principal.owner_id)
    uploaded = select(Upload.sha256).where(Upload.owner_id == principal.owner_id)
    made = select(Output.sha256).where(executions(context, principal, Output.execution_id))
    return or_(column.in_(owned), column.in_(uploaded), column.in_(made))


def among(context: Context, session: Session, principal: Principal, digests: set[str]) -> set[str]:
    """Those of some digests that are artifacts which the caller may see."""
    row = ArtifactRow.sha256
    return set(session.scalars(select(row).where(row.in_(digests), artifacts(context, principal, row))))


def blob(context: Context, session: Session, principal: Principal, digest: str) -> bool:
    """True when the caller may see an artifact that this is the index of, or a file of."""
    if everything(context, principal):
        return True
    if session.get(ArtifactRow, digest) is not None:
        return bool(among(context, session, principal, {digest}))
    row = ArtifactRow
    newest = select(row.sha256).where(artifacts(context, principal, row.sha256)).order_by(row.created_at.desc())
    return any(digest in _files(context.store, index) for index in session.scalars(newest).all())


@lru_cache(maxsize=4096)
def _files(store: Store, index: str) -> frozenset[str]:
    """The digests of an artifact's files, which never change."""
    return frozenset(entry["sha256"] for entry in read_index(store, index)["files"].values())
