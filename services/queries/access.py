"""Whose work a caller may see: everybody's where the lab shares results and for an admin, otherwise their own."""

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import SQLCoreOperations

from services.accounts import Principal
from services.artifacts import Store, read_index
from services.settings import Settings
from services.tables import ArtifactRow, Job, Output, Upload

Column = SQLCoreOperations[Any]


def everything(settings: Settings, principal: Principal) -> bool:
    """True when nothing is hidden from the caller."""
    return settings.share_results or principal.admin


def executions(settings: Settings, principal: Principal, column: Column) -> ColumnElement[bool]:
    """The condition that `column` names an execution which one of the caller's jobs follows."""
    if everything(settings, principal):
        return true()
    return column.in_(select(Job.execution_id).where(Job.owner_id == principal.owner_id))


def artifacts(settings: Settings, principal: Principal, column: Column) -> ColumnElement[bool]:
    """The condition that `column` names an artifact which the caller uploaded or one of their jobs produced."""
    if everything(settings, principal):
        return true()
    owned = select(ArtifactRow.sha256).where(ArtifactRow.owner_id == principal.owner_id)
    uploaded = select(Upload.sha256).where(Upload.owner_id == principal.owner_id)
    produced = select(Output.sha256).where(executions(settings, principal, Output.execution_id))
    return or_(column.in_(owned), column.in_(uploaded), column.in_(produced))


def among(settings: Settings, session: Session, principal: Principal, digests: set[str]) -> set[str]:
    """Those of some digests that are artifacts which the caller may see."""
    row = ArtifactRow.sha256
    return set(session.scalars(select(row).where(row.in_(digests), artifacts(settings, principal, row))))


def blob(settings: Settings, store: Store, session: Session, principal: Principal, digest: str) -> bool:
    """True when the caller may see an artifact that this is the index of, or a file of."""
    if everything(settings, principal):
        return True
    if session.get(ArtifactRow, digest) is not None:
        return bool(among(settings, session, principal, {digest}))
    row = ArtifactRow
    newest = select(row.sha256).where(artifacts(settings, principal, row.sha256)).order_by(row.created_at.desc())
    return any(digest in _files(store, index) for index in session.scalars(newest).all())


@lru_cache(maxsize=4096)
def _files(store: Store, index: str) -> frozenset[str]:
    """The digests of an artifact's files, which never change."""
    return frozenset(entry["sha256"] for entry in read_index(store, index)["files"].values())
