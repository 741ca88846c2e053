"""Which stored results speak about a checkpoint, so that a gate judges all of them and nobody chooses among them."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from services.tables import Execution, Output, Subject

DIGEST = re.compile(r"[0-9a-f]{64}")


def enter(session: Session, execution_id: str, result: Mapping[str, Any]) -> None:
    """Remember which checkpoints a result speaks about: the digests that it lists as `subject`."""
    listed = result.get("subject")
    digests = {digest for digest in listed if _is_digest(digest)} if isinstance(listed, list) else set()
    session.add_all(Subject(subject=digest, execution_id=execution_id) for digest in sorted(digests))


def known(session: Session, candidate: str, kinds: Collection[str], visible: ColumnElement[bool]) -> list[str]:
    """Digests of the result artifacts that speak about a candidate, oldest first, each once.

    Args:
        candidate: the checkpoint's digest.
        kinds: only results of jobs of these kinds.
        visible: the condition on `Output.sha256` that says what the caller may see.
    """
    query = (
        select(Output.sha256)
        .join(Subject, Subject.execution_id == Output.execution_id)
        .join(Execution, Execution.id == Output.execution_id)
        .where(Subject.subject == candidate, Output.name == "result", Execution.kind.in_(kinds), visible)
        .order_by(Execution.id)
    )
    return list(dict.fromkeys(session.scalars(query)))


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None
