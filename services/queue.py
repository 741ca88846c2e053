"""Which queued execution is next, read from an index and never by sorting all that is queued.

Queued executions lie in the index `ix_executions_claim` by queue, device, priority, owner and id. A recursive query
jumps in the lowest priority class from the oldest execution of one owner to that of the next, so it reads one row for
each owner who has work queued there, however much that is. Among these rows the owner comes first who has the fewest
executions running, among equals the one who was served longest ago, then the oldest execution.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    ScalarSelect,
    Select,
    bindparam,
    func,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.orm import Session, aliased

from husai_core import kinds
from services.db import now
from services.states import State
from services.tables import Execution, Owner

CONTROL = "control"
DEVICES = ("cpu", "cuda")
Row = type[Execution]
BESIDE = (Execution.queue, Execution.device, Execution.priority, Execution.owner_id)
FREE_OWNER = select(Owner.id).where(Owner.id == bindparam("owner_id")).with_for_update(skip_locked=True, key_share=True)
FREE = (
    select(Execution)
    .where(Execution.state == State.QUEUED, *[column == bindparam(column.key) for column in BESIDE])
    .where(Execution.kind.in_(bindparam("known", expanding=True)))
    .order_by(Execution.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
"""The oldest execution beside a head that nobody has locked and whose kind is known here."""
SERVE = update(Owner).where(Owner.id.in_(FREE_OWNER)).values(served_at=now())
"""Queries are built once in a process: to build one takes as long as to run it."""


@dataclass(frozen=True)
class Head:
    """The oldest queued execution of one owner in one queue, for one device, in one priority class."""

    id: str
    queue: str
    device: str
    priority: int
    owner_id: str


def lock_next(session: Session, queues: Sequence[str], devices: Sequence[str]) -> Execution | None:
    """The next execution of these queues that no other transaction has locked, locked; None when there is none."""
    known = [*kinds.names(), *kinds.ALIASES]
    for head in heads(session, queues, devices):
        execution = session.scalar(FREE, vars(head) | {"known": known})
        if execution is not None:
            return execution
    return None


def serve(session: Session, owner_id: str) -> None:
    """Remember that work of an owner was taken; where another claim is writing the same down, nobody waits for it."""
    session.connection().execute(SERVE, {"owner_id": owner_id})


def oldest(session: Session, queues: Sequence[str], devices: Sequence[str]) -> str | None:
    """The execution that these queues have held longest, if any is queued."""
    return min((head.id for head in heads(session, queues, devices)), default=None)


def heads(session: Session, queues: Sequence[str], devices: Sequence[str]) -> Iterator[Head]:
    """The oldest execution of each owner in each class, in the order in which they are to be served.

    A class is read only when the one before it is used up, so a claim reads one as a rule.
    """
    lanes, passed = tuple(_lanes(queues, devices)), -1
    while lanes:
        rows = [Head(*row) for row in session.execute(_heads(lanes), {"passed": passed})]
        lowest = [head for head in rows if head.priority == rows[0].priority]
        if not lowest:
            return
        yield from lowest
        passed = lowest[0].priority


@cache
def _heads(lanes: tuple[tuple[str, str], ...]) -> Select[str, str, str, int, str]:
    """The query for the heads of some lanes."""
    walk = _walk(lanes)
    running = (
        select(Execution.owner_id, func.count().label("count"))
        .where(Execution.state == State.RUNNING)
        .group_by(Execution.owner_id)
        .subquery()
    )
    busy, served = func.coalesce(running.c.count, 0), func.coalesce(Owner.served_at, 0.0)
    return (
        select(Execution.id, Execution.queue, Execution.device, Execution.priority, Execution.owner_id)
        .join(walk, walk.c.id == Execution.id)
        .join(Owner, Owner.id == Execution.owner_id)
        .outerjoin(running, running.c.owner_id == Execution.owner_id)
        .order_by(Execution.priority, busy, served, Execution.id)
    )


def _lanes(queues: Sequence[str], devices: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Queue and device of the work that may be taken; a study is summed up on any device."""
    for queue in queues:
        for device in DEVICES if queue == CONTROL else devices:
            yield queue, device


def _walk(lanes: Sequence[tuple[str, str]]) -> CTE:
    """The ids of the heads of some lanes in the lowest class of each, each found by one look into the index."""
    rows = [select(literal(queue).label("queue"), literal(device).label("device")) for queue, device in lanes]
    lane = (union_all(*rows) if len(rows) > 1 else rows[0]).cte("lanes")
    first, last, later = aliased(Execution), aliased(Execution), aliased(Execution)
    beyond = first.priority > bindparam("passed", type_=Integer)
    start = _first(first, first.queue == lane.c.queue, first.device == lane.c.device, beyond).correlate(lane)
    walk = select(start.label("id")).select_from(lane).cte("heads", recursive=True)
    same_class = later.queue == last.queue, later.device == last.device, later.priority == last.priority
    following = _first(later, *same_class, later.owner_id > last.owner_id).correlate(last)
    return walk.union_all(select(following).select_from(walk).join(last, last.id == walk.c.id))


def _first(row: Row, *lane: ColumnElement[bool]) -> ScalarSelect[str]:
    """The oldest queued execution of the first owner in the lowest class that a condition allows."""
    query = select(row.id).where(row.state == State.QUEUED, *lane)
    return query.order_by(row.priority, row.owner_id, row.id).limit(1).scalar_subquery()
