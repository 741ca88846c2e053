"""Whether the log of decisions is whole: that none was deleted, changed or put in another place.

Each decision's signed statement names its number and the chain hash of the one before it, so a change breaks the link
to the next. The head is kept apart from the decisions and is written with each of them, so a deleted last one is
missed. Who can write everything in the database could cut the log and the head together; an anchor, which is a number
and a chain hash kept elsewhere, shows that, too.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from husai_core import identity
from husai_core.release import bundle as bundles
from husai_core.release import dsse
from husai_core.release.decide import instant
from services.db import Database
from services.tables import ChainHead, Decision

log = logging.getLogger("husai.chain")
MOST_PROBLEMS = 100
LAST_AT_START = 1000
COLUMNS = ("policy", "policy_digest", "candidate", "verdict")
"""What the table repeats of a signed statement."""
SIGNING_SECONDS = 60.0
"""Longest time from reading the clock to writing a decision that is judged ahead of its `as_of`."""


@dataclass(frozen=True)
class Anchor:
    """A decision's number and its chain hash, written down elsewhere."""

    seq: int
    chain: str


@dataclass(frozen=True)
class _Link:
    """One decision's place in the chain."""

    seq: int
    previous: str
    chain: str


@dataclass(frozen=True)
class ChainReport:
    """How many decisions there are, the chain hash of the last one, and what is wrong, a line for each fault."""

    length: int
    head: str
    problems: list[str]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def check_at_start(database: Database) -> bool:
    """Log whether the chain is whole, looking into the last decisions only, so that a start stays fast."""
    with database.read() as session:
        report = check(session, last=LAST_AT_START)
    for problem in report.problems:
        log.error("the chain of decisions is broken: %s", problem)
    if report.ok:
        log.info("the chain of %d decisions is whole", report.length)
    return report.ok


def check(session: Session, *, last: int | None = None, anchors: Sequence[Anchor] = ()) -> ChainReport:
    """Check numbers and links of all decisions, and what is signed of all or of the `last` so many.

    Args:
        last: how many statements and signatures are checked, from the end; None means all.
        anchors: what was written down about the chain elsewhere.
    """
    columns = Decision.seq, Decision.previous, Decision.chain
    links = [_Link(*row) for row in session.execute(select(*columns).order_by(Decision.seq))]
    head = session.get(ChainHead, 1)
    length, end = (links[-1].seq, links[-1].chain) if links else (0, bundles.GENESIS)
    problems = [*_links(links), *_head(links, head), *_anchored(links, anchors), *_statements(session, length, last)]
    if len(problems) > MOST_PROBLEMS:
        problems = [*problems[:MOST_PROBLEMS], f"and {len(problems) - MOST_PROBLEMS} more"]
    return ChainReport(len(links), end, problems)


def anchor(session: Session) -> Anchor:
    """The head of the chain, to be kept elsewhere; number 0 while there is no decision."""
    head = session.get(ChainHead, 1)
    return Anchor(head.seq, head.chain) if head else Anchor(0, bundles.GENESIS)


def extend(session: Session, last: Decision | None) -> bundles.Chain:
    """The place of the next decision. The head counts, so that a missing last decision stays a gap."""
    head = session.get(ChainHead, 1, with_for_update=True)
    if head is None:
        return bundles.Chain(seq=last.seq + 1, previous=last.chain) if last else bundles.Chain(seq=1)
    return bundles.Chain(seq=max(head.seq, last.seq if last else 0) + 1, previous=head.chain)


def _links(links: Sequence[_Link]) -> Iterator[str]:
    """Gaps in the numbers, and decisions that do not follow the one before them."""
    seq, chain = 0, bundles.GENESIS
    for row in links:
        if row.seq == seq + 2:
            yield f"decision {seq + 1} is missing"
        elif row.seq > seq + 2:
            yield f"decisions {seq + 1} to {row.seq - 1} are missing"
        elif row.previous != chain:
            yield f"decision {row.seq} does not follow decision {seq}: one of them was changed or moved"
        seq, chain = row.seq, row.chain


def _head(links: Sequence[_Link], head: ChainHead | None) -> Iterator[str]:
    """What the head says about the end."""
    if head is None:
        if links:
            yield "the record of the last decision is missing"
        return
    last = links[-1].seq if links else 0
    if last < head.seq:
        lacking = f"decision {head.seq}" if head.seq == last + 1 else f"decisions {last + 1} to {head.seq}"
        yield f"{lacking}, recorded as the last, {'is' if head.seq == last + 1 else 'are'} missing"
    elif last > head.seq:
        yield f"decision {last} was added past the recorded last one, {head.seq}"
    elif links[-1].chain != head.chain:
        yield f"decision {last} is not the one that was recorded as the last"


def _anchored(links: Sequence[_Link], anchors: Sequence[Anchor]) -> Iterator[str]:
    chains = {row.seq: row.chain for row in links} | {0: bundles.GENESIS}
    for anchor in anchors:
        if anchor.seq not in chains:
            yield f"decision {anchor.seq}, which the anchor names, is missing"
        elif chains[anchor.seq] != anchor.chain:
            yield f"decision {anchor.seq} is not the one that the anchor names"


def _statements(session: Session, length: int, last: int | None) -> Iterator[str]:
    """Decisions whose row says something else than what was signed, or whose signature is wrong."""
    query = select(Decision).order_by(Decision.seq).execution_options(yield_per=200)
    if last is not None:
        query = query.where(Decision.seq > length - last)
    for decision in session.scalars(query):
        fault = _fault(decision)
        if fault is not None:
            yield f"decision {decision.seq} was changed: {fault}"


def _fault(decision: Decision) -> str | None:
    """What is wrong with one decision by itself."""
    try:
        envelope = dsse.Envelope.model_validate(decision.envelope)
        payload = dsse.verify(envelope, dsse.decode(decision.public_key))
        predicate = json.loads(payload)["predicate"]
        signed, place = predicate["decision"], predicate["chain"]
        if place != {"seq": decision.seq, "previous": decision.previous}:
            return f"its statement was signed as decision {place['seq']}"
        if decision.chain != identity.sha256((decision.previous + identity.sha256(payload)).encode()):
            return "its chain hash is not that of its statement"
        different = [name for name in COLUMNS if getattr(decision, name) != signed.get(name)]
        if not _at(decision, instant(signed["as_of"])):
            different.append("judged_at")
    except (ValueError, KeyError, TypeError) as error:
        return f"its statement cannot be read ({error})".splitlines()[0]
    return f"its {different[0]} is not the signed one" if different else None


def _at(decision: Decision, as_of: float) -> bool:
    """True when a row's instant is its statement's `as_of`, or that of its signature where this came before."""
    signed_first = decision.judged_at < as_of and abs(decision.judged_at - decision.created_at) <= SIGNING_SECONDS
    return decision.judged_at == as_of or signed_first
