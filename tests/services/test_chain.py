"""The log of decisions: whoever deletes, changes or moves one is found out, by its number."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from services import chain, decisions
from services.chain import Anchor
from services.db import Database
from services.tables import ChainHead, Decision
from tests.services.release import SIGNER, record


def drop(*numbers: int) -> Callable[[Session], object]:
    return lambda session: session.execute(delete(Decision).where(Decision.seq.in_(numbers)))


def change(number: int, **values: object) -> Callable[[Session], object]:
    return lambda session: session.execute(update(Decision).where(Decision.seq == number).values(**values))


def swap(session: Session) -> None:
    """Let the second and the third decision change places, their links with them."""
    second, third = (session.scalars(select(Decision).where(Decision.seq == number)).one() for number in (2, 3))
    links = [(row.previous, row.chain) for row in (second, third)]
    for number, new in ((2, 99), (3, 2), (99, 3)):
        session.execute(update(Decision).where(Decision.seq == number).values(seq=new))
    for number, (previous, hash) in zip((2, 3), links, strict=True):
        session.execute(update(Decision).where(Decision.seq == number).values(previous=previous, chain=hash))


def cut(session: Session) -> None:
    """Delete the last decision and write a head that does not know it."""
    drop(4)(session)
    last = session.scalars(select(Decision).where(Decision.seq == 3)).one()
    session.execute(update(ChainHead).values(seq=3, chain=last.chain))


@pytest.fixture
def four(database: Database, tmp_path: Path) -> Database:
    """A chain of four decisions."""
    with database.write() as session:
        for number in range(4):
            record(session, tmp_path / str(number))
    return database


def test_a_chain_as_it_was_written_is_whole(four: Database) -> None:
    with four.read() as session:
        report = chain.check(session)
        assert (report.ok, report.length, report.problems) == (True, 4, [])
        assert chain.anchor(session) == Anchor(4, report.head)
        assert chain.check(session, last=1, anchors=[Anchor(4, report.head)]).ok


def test_an_empty_chain_is_whole(database: Database) -> None:
    with database.read() as session:
        report = chain.check(session, anchors=[chain.anchor(session)])
    assert (report.ok, report.length) == (True, 0)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (drop(2), "decision 2 is missing"),
        (drop(2, 3), "decisions 2 to 3 are missing"),
        (drop(4), "decision 4, recorded as the last, is missing"),
        (drop(1, 2, 3, 4), "decisions 1 to 4, recorded as the last, are missing"),
        (swap, "decision 2 was changed: its statement was signed as decision 3"),
        (change(3, verdict="pass"), "decision 3 was changed: its verdict is not the signed one"),
        (change(3, candidate="e" * 64), "decision 3 was changed: its candidate is not the signed one"),
        (change(3, policy="lenient"), "decision 3 was changed: its policy is not the signed one"),
        (change(3, judged_at=3600.0), "decision 3 was changed: its judged_at is not the signed one"),
        (change(3, judged_at=9e9), "decision 3 was changed: its judged_at is not the signed one"),
        (change(2, chain="f" * 64), "decision 3 does not follow decision 2: one of them was changed or moved"),
        (lambda session: session.execute(delete(ChainHead)), "the record of the last decision is missing"),
    ],
)
def test_a_fault_is_named(four: Database, fault: Callable[[Session], object], named: str) -> None:
    with four.write() as session:
        fault(session)
    with four.read() as session:
        report = chain.check(session)
    assert not report.ok
    assert named in report.problems


def test_an_anchor_shows_that_the_head_was_cut_with_the_log(four: Database) -> None:
    with four.read() as session:
        kept = chain.anchor(session)
    with four.write() as session:
        cut(session)
    with four.read() as session:
        assert chain.check(session).ok
        report = chain.check(session, anchors=[kept])
    assert report.problems == ["decision 4, which the anchor names, is missing"]


def test_a_decision_after_a_deleted_one_leaves_the_gap_to_be_seen(four: Database, tmp_path: Path) -> None:
    with four.write() as session:
        drop(4)(session)
        record(session, tmp_path / "next")
    with four.read() as session:
        assert chain.check(session).problems == ["decision 4 is missing"]


def test_a_check_of_the_end_reads_no_earlier_statements(four: Database) -> None:
    with four.write() as session:
        change(1, verdict="pass")(session)
    with four.read() as session:
        assert chain.check(session, last=3).ok
        assert not chain.check(session, last=4).ok


def test_every_key_that_signed_is_remembered_and_the_one_in_use_is_named(four: Database, tmp_path: Path) -> None:
    newer = Ed25519PrivateKey.from_private_bytes(b"1" * 32)
    with four.write() as session:
        decisions.remember(session, newer, current=True)
        keys = decisions.signing_keys(session)
    assert [key.current for key in keys] == [True, False]
    assert keys[0].pem.startswith("-----BEGIN PUBLIC KEY-----")
    with four.write() as session:
        decisions.remember(session, SIGNER, current=True)
        record(session, tmp_path / "old again")
        assert [key.keyid for key in decisions.signing_keys(session)] == [keys[1].keyid, keys[0].keyid]
