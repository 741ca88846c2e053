"""Random walks through the job lifecycle, checked against a model after every step."""

import shutil
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select, update

from husai_core.artifact_index import index_tree
from services import accounts, jobs, leases
from services.artifacts import Store, Stored, store_tree
from services.db import Database
from services.jobs import Submission
from services.leases import Claim, Failure
from services.problems import Problem
from services.settings import Settings
from services.states import LIVE, State
from services.tables import Awaited, Execution, Job, Outbox, Result

QUEUES = ("train", "benchmark", "stress", "control")
MESSAGES = select(Outbox.execution_id)
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class Lifecycle(RuleBasedStateMachine):
    """Two workers and one owner; jobs are activations (no input) or SAEs (of a digest, or of a job's output)."""

    fresh: ClassVar[Callable[[], Settings]]
    submitted, rows = Bundle("submitted"), Bundle("rows")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.settings = self.fresh()
        self.folder = self.settings.home
        self.database = Database(self.settings.database)
        self.store = Store(self.settings.artifacts)
        self.final: dict[str, tuple[State, str | None]] = {}
        self.results: dict[str, int] = {}
        with self.database.write() as session:
            owner = accounts.create_owner(session, "ada", "admin")
            _, token = accounts.create_key(session, b"k", owner.id, "key", list(accounts.SCOPES))
            self.principal = accounts.authenticate(session, b"k", token)

    def teardown(self) -> None:
        """Whatever happened, working the queues off ends every job."""
        for _ in range(200):
            claim = self._claim("w0")
            if claim is None:
                with self.database.write() as session:
                    session.execute(update(Execution).values(lease_until=0.0).where(Execution.state == State.RUNNING))
                    if not leases.reap(session, 100):
                        break
            else:
                self._finish(claim, succeed=True)
        with self.database.read() as session:
            live = session.scalars(select(Job).where(Job.state.in_(LIVE))).all()
            assert [(job.id, job.state) for job in live] == []
            assert session.scalar(select(func.count()).select_from(Awaited)) == 0
        self.database.close()
        shutil.rmtree(self.folder)

    @rule(targets=(submitted, rows), seed=st.integers(0, 2), reuse=st.booleans())
    def submit(self, seed: int, reuse: bool) -> str:
        return self._submit(Submission("train.activations", {"source": "synthetic", "seed": seed}, reuse=reuse))

    @rule(target=submitted, source=rows, seed=st.integers(0, 1), reuse=st.booleans())
    def submit_consumer(self, source: str, seed: int, reuse: bool) -> str:
        inputs: dict[str, list[Any]] = {"activations": [{"job": source, "output": "activations", "index": None}]}
        return self._submit(Submission("train.sae", {"seeds": [seed]}, inputs, reuse=reuse))

    @rule(seed=st.integers(0, 2))
    def submit_twice_under_one_key(self, seed: int) -> None:
        submission = Submission("train.activations", {"source": "synthetic", "seed": seed})
        assert self._submit(submission, key=f"k{seed}") == self._submit(submission, key=f"k{seed}")

    @rule(target=held, worker=st.sampled_from(["w0", "w1"]))
    def claim(self, worker: str) -> Claim | None:
        return self._claim(worker)

    @rule(claim=held)
    def renew(self, claim: Claim | None) -> None:
        if claim is not None:
            mine = self._holds(claim)
            with self.database.write() as session:
                assert (leases.renew(session, claim.execution_id, claim.attempt, 60) != "lost") == mine

    @rule(claim=consumes(held), succeed=st.booleans())
    def finish(self, claim: Claim | None, succeed: bool) -> None:
        if claim is not None:
            mine = self._holds(claim)
            assert self._finish(claim, succeed) == mine

    @rule(claim=held)
    def hand_back(self, claim: Claim | None) -> None:
        if claim is not None:
            mine = self._holds(claim)
            with self.database.write() as session:
                assert leases.hand_back(session, claim.execution_id, claim.attempt) == mine

    @rule(claim=held)
    def lose(self, claim: Claim | None) -> None:
        if claim is not None:
            with self.database.write() as session:
                mine = Execution.id == claim.execution_id, Execution.state == State.RUNNING
                session.execute(update(Execution).where(*mine).values(lease_until=0.0))
                leases.reap(session, 100)
            assert not self._holds(claim)

    @rule(job=submitted)
    def cancel(self, job: str) -> None:
        with self.database.write() as session:
            was = session.get_one(Job, job).state
            if was.final:
                with pytest.raises(Problem):
                    jobs.cancel(session, self.principal, job)
            else:
                assert jobs.cancel(session, self.principal, job).state == State.CANCELLED

    @rule(target=submitted, job=submitted)
    def retry(self, job: str) -> str:
        with self.database.write() as session:
            was = session.get_one(Job, job).state
            if was.final and was != State.SUCCEEDED:
                return jobs.retry(session, self.settings, self.principal, job).id
            with pytest.raises(Problem):
                jobs.retry(session, self.settings, self.principal, job)
            return job

    @invariant()
    def the_tables_agree(self) -> None:
        """Read once, as this runs after every step."""
        with self.database.read() as session:
            jobs = list(session.scalars(select(Job)))
            executions = {execution.id: execution for execution in session.scalars(select(Execution))}
            results = set(session.scalars(select(Result.execution_id)))
            announced = set(session.scalars(MESSAGES))
        self._final_states_stay(jobs)
        self._jobs_follow_their_executions(jobs, executions)
        self._equal_work_is_shared_and_unwanted_work_stops(jobs, executions)
        assert results == {id for id, execution in executions.items() if execution.state == State.SUCCEEDED}
        assert announced >= {id for id, execution in executions.items() if execution.state == State.QUEUED}

    def _final_states_stay(self, jobs: list[Job]) -> None:
        now = {job.id: (job.state, job.execution_id) for job in jobs}
        for job, was in self.final.items():
            assert now[job] == was
        self.final = {job: state for job, state in now.items() if state[0].final}

    def _jobs_follow_their_executions(self, jobs: list[Job], executions: dict[str, Execution]) -> None:
        for job in jobs:
            if job.execution_id is not None:
                assert job.state in (executions[job.execution_id].state, State.CANCELLED)

    def _equal_work_is_shared_and_unwanted_work_stops(self, jobs: list[Job], executions: dict[str, Execution]) -> None:
        live = [execution for execution in executions.values() if execution.state in LIVE]
        shared = [execution.digest for execution in live if execution.shared]
        assert len(shared) == len(set(shared))
        wanted = {job.execution_id for job in jobs if job.state in LIVE}
        for execution in live:
            assert execution.id in wanted or execution.cancel_requested
            assert (execution.lease_until is not None) == (execution.state == State.RUNNING)

    def _submit(self, submission: Submission, key: str | None = None) -> str:
        with self.database.write() as session:
            return jobs.submit(session, self.settings, self.principal.owner_id, submission, key=key)[0].id

    def _claim(self, worker: str) -> Claim | None:
        with self.database.write() as session:
            return leases.claim(session, worker, "boot", QUEUES, ["cpu"], 60)

    def _holds(self, claim: Claim) -> bool:
        with self.database.read() as session:
            return leases.peek(session, claim.execution_id, claim.attempt) != "lost"

    def _finish(self, claim: Claim, succeed: bool) -> bool:
        with self.database.write() as session:
            end = (
                leases.success(self.store, {"seed": 0}, self._outputs(claim))
                if succeed
                else Failure(State.FAILED, "error.code", "no")
            )
            return leases.finish(session, claim.execution_id, claim.attempt, SIGNER, end)

    def _outputs(self, claim: Claim) -> dict[str, list[Stored]]:
        if claim.kind != "train.activations":
            return {}
        folder = self.folder / "out" / claim.execution_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cfg.json").write_text(str(claim.spec["seed"]))
        return {"activations": [store_tree(self.store, index_tree("activations", folder), folder)]}


def test_lifecycle(fresh: Callable[[], Settings]) -> None:
    run_state_machine_as_test(
        type("FreshLifecycle", (Lifecycle,), {"fresh": staticmethod(fresh)}),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
