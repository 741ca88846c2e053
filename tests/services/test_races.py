"""Many workers and callers at once: what one of them does never undoes, doubles or hides what another did."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from services import accounts, events, jobs, leases
from services.accounts import Principal
from services.db import Database
from services.jobs import Submission
from services.leases import Claim, Failure, Success
from services.problems import Problem
from services.settings import Settings
from services.states import ALLOWED, LIVE, State
from services.tables import Attempt, Awaited, Event, Execution, Job, Outbox, Result

THREADS, STEPS = 6, 60
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))
QUEUES = ["train", "stress", "control"]


class Crowd:
    """Threads that do random things to the same jobs, and a record of what they were told."""

    def __init__(self, settings: Settings, database: Database, principal: Principal) -> None:
        self.settings, self.database, self.principal = settings, database, principal
        self.submitted: list[str] = []
        self.rows: list[str] = []
        self.claims: list[tuple[str, int]] = []
        self.ends: list[str] = []
        self.seen: dict[str, list[int]] = {}
        self.over = threading.Event()

    def act(self, seed: int) -> None:
        """One thread's life: a worker and a caller in one."""
        chance, held = random.Random(seed), list[Claim]()
        moves: list[Callable[[], object]] = [
            lambda: self.submit(chance),
            lambda: self.submit_consumer(chance),
            lambda: self.claim(held, chance),
            lambda: self.claim(held, chance),
            lambda: held and self.finish(held.pop(chance.randrange(len(held))), chance),
            lambda: held and self.write(leases.renew, chance.choice(held), 60, shared=True),
            lambda: held and self.write(leases.hand_back, held.pop()),
            lambda: self.cancel(chance),
            self.reap,
        ]
        for _ in range(STEPS):
            chance.choice(moves)()

    def submit(self, chance: random.Random) -> None:
        spec = {"source": "synthetic", "seed": chance.randrange(4)}
        self.rows.append(self._submit(Submission("train.activations", spec, reuse=chance.random() < 0.8)))

    def submit_consumer(self, chance: random.Random) -> None:
        if self.rows:
            source = {"job": chance.choice(self.rows), "output": "activations", "index": None}
            self._submit(Submission("train.sae", {"seeds": [chance.randrange(2)]}, {"activations": [source]}))

    def _submit(self, submission: Submission) -> str:
        try:
            with self.database.write() as session:
                job, _ = jobs.submit(session, self.settings, self.principal.owner_id, submission)
        except IntegrityError:  # another made the same row first
            return self._submit(submission)
        self.submitted.append(job.id)
        return job.id

    def claim(self, held: list[Claim], chance: random.Random) -> None:
        lease = chance.choice([0.0, 60.0])
        with self.database.write(shared=True) as session:
            claim = leases.claim(session, f"w{threading.get_ident()}", "boot", QUEUES, ["cpu"], lease)
        if claim is not None:
            self.claims.append((claim.execution_id, claim.attempt))
            held.append(claim)

    def finish(self, claim: Claim, chance: random.Random) -> None:
        failed = Failure(State.FAILED, "error.code", "no")
        end = Success({"seed": 0}, {}) if chance.random() < 0.7 else failed
        if self.write(leases.finish, claim, SIGNER, end):
            self.ends.append(claim.execution_id)

    def write(self, work: Callable[..., Any], claim: Claim, *arguments: Any, shared: bool = False) -> Any:
        with self.database.write(shared=shared) as session:
            return work(session, claim.execution_id, claim.attempt, *arguments)

    def cancel(self, chance: random.Random) -> None:
        if self.submitted:
            try:
                with self.database.write() as session:
                    jobs.cancel(session, self.principal, chance.choice(self.submitted))
            except Problem:
                pass

    def reap(self) -> None:
        with self.database.write() as session:
            leases.reap(session, 1000)

    def watch(self) -> None:
        """Follow every job's events as a waiting client does, from the last one seen."""
        while True:
            last = self.over.is_set()
            for job_id in list(self.submitted):
                seen = self.seen.setdefault(job_id, [])
                with self.database.read() as session:
                    job = session.get_one(Job, job_id)
                    seen += [event.id for event in events.after(session, job, seen[-1] if seen else 0, 1000)]
            if last:
                return

    def end_all(self) -> None:
        """Let every lease run out, and work off what is left."""
        while True:
            with self.database.write() as session:
                session.execute(update(Execution).values(lease_until=0.0).where(Execution.state == State.RUNNING))
                leases.reap(session, 1000)
            held: list[Claim] = []
            self.claim(held, random.Random(0))
            if not held:
                return
            self.write(leases.finish, held[0], SIGNER, Success({"seed": 0}, {}))


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_breaks_nothing(settings: Settings, database: Database, seed: int) -> None:
    with database.write() as session:
        owner = accounts.create_owner(session, "ada", "admin")
        _, token = accounts.create_key(session, b"k", owner.id, "key", list(accounts.SCOPES))
        principal = accounts.authenticate(session, b"k", token)
    crowd = Crowd(settings, database, principal)
    with ThreadPoolExecutor(THREADS + 1) as pool:
        watching = pool.submit(crowd.watch)
        acting = [pool.submit(crowd.act, THREADS * seed + number) for number in range(THREADS)]
        for thread in acting:
            thread.result()
        crowd.end_all()
        crowd.over.set()
        watching.result()
    assert max(Counter(crowd.claims).values()) == 1, "two workers hold one attempt"
    assert max(Counter(crowd.ends).values()) == 1, "an execution ended twice"
    with database.read() as session:
        assert not session.scalars(select(Job.id).where(Job.state.in_(LIVE))).all()
        assert session.scalar(select(func.count()).select_from(Awaited)) == 0
        done = set(session.scalars(select(Execution.id).where(Execution.state == State.SUCCEEDED)))
        assert set(session.scalars(select(Result.execution_id))) == done
        attempts = Counter(session.scalars(select(Attempt.execution_id)))
        assert attempts == {row.id: row.attempt for row in session.scalars(select(Execution)) if row.attempt}
        queued = set(session.scalars(select(Outbox.execution_id)))
        assert {execution for execution, _ in crowd.claims} <= queued, "work without a message"
        for job in session.scalars(select(Job)):
            check_history(session, job, crowd.seen[job.id])
    database.close()


def check_history(session: Any, job: Job, seen: list[int]) -> None:
    """A job's states follow the table, its end is its last, and nobody who followed its events missed one."""
    rows = list(session.scalars(select(Event).where(Event.job_id == job.id, Event.type == "state").order_by(Event.id)))
    states = [State(row.data["state"]) for row in rows]
    for old, new in pairwise(states):
        assert new in ALLOWED[old], states
    assert [state for state in states if state.final] == [job.state]
    assert {row.id for row in rows} <= set(seen)
