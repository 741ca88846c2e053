"""Watches over one attempt: starts its process, keeps its lease, stores what it makes, and ends it when it must end."""

import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select

from husai_core import kinds
from husai_core.kinds.kind import Work
from services import estimates, input_facts, leases, lifecycle
from services.artifacts import Store, Stored, materialise, productions, store_tree
from services.db import Database, away
from services.decisions import Signer
from services.failpoints import failpoint
from services.leases import Claim, Failure, Success
from services.problems import Problem
from services.settings import Settings
from services.states import State
from services.storage import SIZE, HostFault, disk_fault
from services.tables import ArtifactRow, Job
from worker import attempt_process, process_start
from worker.fitness import host_problem

log = logging.getLogger("husai.worker")
T = TypeVar("T")
PATIENCE_SECONDS = 900
MOST_NEWS = 200
"""Events in one report; readers of the event log look back further than that."""
TICK = 0.25
PEEK_SECONDS = 0.5
FORKSERVER_GONE = 255
"""The exit code that multiprocessing reports when it lost the process that watches the child."""


class Lost(Exception):
    """The attempt is no longer ours."""


class Stop(Exception):
    """The attempt must end without a result."""

    def __init__(self, state: State, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(state, reason, detail)


class Supervisor:
    """One attempt, from its claim to its end."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: Store,
        signer: Signer | None,
        claim: Claim,
        drain: threading.Event,
    ) -> None:
        self.settings, self.database, self.store, self.signer = settings, database, store, signer
        self.claim, self.drain = claim, drain
        self.kind = kinds.get(claim.kind)
        self.directory = settings.root / "work" / f"{claim.execution_id}-{claim.attempt}"
        self.news: list[tuple[str, dict[str, Any]]] = []
        self.progress: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        self.claimed = self.started = self.worked = self.renewed = self.peeked = time.monotonic()
        self.work: Work | None = None
        self.last_progress: dict[str, Any] | None = None
        self.draining_since: float | None = None

    def run(self) -> str | None:
        """Run the attempt to its end and record it; returns what keeps this host from running more, if anything does.

        Raises:
            DBAPIError: the database stayed away.
        """
        try:
            return self._run()
        except Lost:
            log.warning("attempt %d of %s was taken over", self.claim.attempt, self.claim.execution_id)
            return None
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self) -> str | None:
        try:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory.mkdir(parents=True)
            self._finish(self._supervise())
        except Stop as stop:
            self._record(stop.failure)
        except Lost:
            raise
        except Exception as error:
            if away(error):
                raise
            return self._fail(error)
        return None

    def _fail(self, error: Exception) -> str | None:
        """End an attempt that failed here and not in its process; returns what is wrong with this host, if anything is.

        What the host is to blame for uses up none of the execution's attempts. A job that fills a disk which has room
        again without it is to blame itself.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        problem = self._problem(error)
        if problem is not None:
            log.error(
                "%s: attempt %d is handed back: %s", self.claim.job_id, self.claim.attempt, problem, exc_info=error
            )
            self._write(leases.hand_back, leases.HOST, f"{problem[0].upper()}{problem[1:]} on {socket.gethostname()}.")
            failpoint("hand_back.committed")
            return problem
        log.error("%s: attempt %d failed outside its process", self.claim.job_id, self.claim.attempt, exc_info=error)
        if isinstance(error, OSError | EOFError | Problem | HostFault):
            self._give_up(_line(error))
            return _line(error)
        self._record(Failure(State.FAILED, "error.record", _line(error)))
        return None

    def _problem(self, error: Exception) -> str | None:
        """What is wrong with this host, as far as an error and a try of its folders tell."""
        problem = host_problem(self.store, self.directory.parent)
        if problem is not None:
            return problem
        number = disk_fault(error)
        if number is not None and number not in SIZE:
            return str(HostFault(number))
        return None

    def _supervise(self) -> dict[str, Any] | None:
        """Start the child and serve it until it has ended; returns its last message."""
        task = self._task()
        self.started = self.worked = time.monotonic()
        failpoint("supervisor.before_start")
        context = process_start.context()
        pipe, theirs = context.Pipe()
        process: BaseProcess = context.Process(target=attempt_process.main, args=(theirs, task), daemon=False)
        process.start()
        theirs.close()
        failpoint("supervisor.started")
        try:
            self._serve(pipe, process)
        finally:
            kill_group(process)
            pipe.close()
        return self.end

    def _serve(self, pipe: Connection, process: BaseProcess) -> None:
        while self.end is None:
            for ready in wait([pipe, process.sentinel], TICK):
                if ready is pipe and not self._receive(pipe):
                    return self._died(process)
                if ready == process.sentinel and not pipe.poll():
                    return self._died(process)
            self._watch(pipe)
        return None

    def _died(self, process: BaseProcess) -> None:
        """The child ended without a last message: killed from outside, or broken by its own code."""
        process.join(5)
        if process.exitcode in (-signal.SIGKILL, FORKSERVER_GONE):
            self.end = {"type": "killed"}
            return
        code = process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise Stop(State.FAILED, "error.process", f"The job's process ended without a result ({how}).")

    def _receive(self, pipe: Connection) -> bool:
        """Take one message; False when the child has closed its end."""
        try:
            message = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return False
        type = message.pop("type")
        if type != "log":
            self.worked = time.monotonic()
        if type == "progress":
            self.progress = self.last_progress = message
        elif type in ("metrics", "log"):
            self.news.append((type, message))
        elif type == "checkpoint":
            self._keep_checkpoint(message)
            pipe.send_bytes(b"kept")
        else:
            self.end = {"type": type, **message}
        return True

    def _keep_checkpoint(self, message: dict[str, Any]) -> None:
        stored = store_tree(self.store, message["index"], Path(message["path"]), self._renew)
        holding = self._write(leases.checkpointed, stored)
        failpoint("checkpoint.committed")
        self._check(holding)
        self.worked = time.monotonic()

    def _watch(self, pipe: Connection) -> None:
        """Everything that time decides: renewal, reports, cancellation, limits, drain."""
        now = time.monotonic()
        self._renew()
        if now - self.peeked > PEEK_SECONDS:
            self.peeked = now
            self._report()
        if now - self.started > self.kind.time_limit:
            raise Stop(State.TIMED_OUT, "timeout.run", f"It ran longer than {self.kind.time_limit:.0f} s.")
        if now - self.worked > self.kind.progress_timeout:
            limit = self.kind.progress_timeout
            raise Stop(State.TIMED_OUT, "timeout.progress", f"It reported no work for {limit:.0f} s.")
        if self.drain.is_set():
            self._drain(pipe, now)

    def _renew(self) -> None:
        """Prolong the lease when a third of it is over; also called while files are fetched and stored."""
        now = time.monotonic()
        if now - self.renewed > self.settings.lease_seconds / 3:
            self.renewed = now
            holding = self._write(leases.renew, self.settings.lease_seconds, shared=True)
            failpoint("renew.committed")
            self._check(holding)

    def _report(self) -> None:
        progress, news = self.progress, self.news[:MOST_NEWS]
        self.progress, self.news = None, self.news[MOST_NEWS:]
        if progress is None and not news:
            holding = self._write(leases.peek, shared=True)
        else:
            holding = self._write(leases.report, progress, news, shared=True)
        self._check(holding)

    def _check(self, holding: leases.Holding) -> None:
        if holding == "lost":
            raise Lost
        if holding == "cancel":
            raise Stop(State.CANCELLED, "cancelled.user", "No job needs it any more.")

    def _drain(self, pipe: Connection, now: float) -> None:
        if self.draining_since is None:
            self.draining_since = now
            with suppress(OSError):
                pipe.send_bytes(b"drain")
        elif now - self.draining_since > self.settings.grace_seconds:
            self.end = {"type": "drained"}

    def _finish(self, end: dict[str, Any] | None) -> None:
        assert end is not None
        while self.news or self.progress:
            self._report()
        if end["type"] == "drained":
            self._write(leases.hand_back)
            failpoint("hand_back.committed")
            self._log("was handed back, as this worker stops")
        elif end["type"] == "host":
            raise HostFault(end["number"])
        elif end["type"] == "blocked":
            self._write(leases.block, end["detail"], end["assets"])
            failpoint("block.committed")
            self._log("is blocked: %s", end["detail"])
        elif end["type"] == "killed":
            self._give_up("its process was killed, as happens when memory runs out")
        elif end["type"] == "failed":
            self._record(Failure(State.FAILED, end["reason"], end["detail"]))
        else:
            outputs: dict[str, list[Stored]] = {}
            for output in end["outputs"]:
                stored = store_tree(self.store, output["index"], Path(output["path"]), self._renew)
                outputs.setdefault(output["name"], []).append(stored)
            failpoint("finish.stored")
            work = estimates.work_done(self.work, self.last_progress) if self.work else None
            document = work.model_dump(mode="json", exclude={"outputs"}) if work else None
            self._record(leases.success(self.store, end["result"], outputs, document))

    def _give_up(self, why: str) -> None:
        self._write(leases.give_up, self.settings.max_attempts, why)
        failpoint("give_up.committed")
        self._log("was lost: %s", why)

    def _record(self, end: Success | Failure) -> None:
        kept = self._write(leases.finish, self.signer, end)
        failpoint("finish.committed")
        if not kept:
            raise Lost
        if isinstance(end, Failure):
            self._log("%s: %s: %s", end.state, end.reason, end.detail)
        else:
            self._log("succeeded")

    def _log(self, what: str, *arguments: object) -> None:
        """One line about the attempt, with its ids and how long it took."""
        seconds = time.monotonic() - self.claimed
        line = f"job %s, execution %s, attempt %d, %s: {what} after %.2f s"
        log.info(
            line, self.claim.job_id, self.claim.execution_id, self.claim.attempt, self.claim.kind, *arguments, seconds
        )

    def _write(self, work: Callable[..., T], *arguments: Any, shared: bool = False) -> T:
        """Write about this attempt. A database that is away for a while costs no work: the fence tells later whether
        the attempt is still ours."""
        fence = self.claim.execution_id, self.claim.attempt

        def patient(waited: float) -> bool:
            return waited < (self.settings.grace_seconds if self.drain.is_set() else PATIENCE_SECONDS)

        return self.database.persist(lambda session: work(session, *fence, *arguments), patient, shared=shared)

    def _task(self) -> attempt_process.Task:
        claim = self.claim
        with self.database.read() as session:
            rows = {
                port: [session.get_one(ArtifactRow, digest) for digest in digests]
                for port, digests in claim.inputs.items()
            }
            produced = {
                row.sha256: productions(session, row, None if self.settings.share_results else claim.owner_id)
                for row in chain.from_iterable(rows.values())
            }
            children = session.scalars(select(Job).where(Job.parent_id == claim.execution_id))
            done = {str(job.name): lifecycle.outcome(session, job) for job in children}
        inputs = {
            port: [
                {"digest": row.sha256, "type": row.type, "produced_at": produced[row.sha256],
                 "path": self._lay_out(f"inputs/{port}/{position}", row.sha256)}
                for position, row in enumerate(artifacts)
            ]
            for port, artifacts in rows.items()
        }  # fmt: skip
        self.work = estimates.work_of(claim.kind, claim.spec, input_facts.of_artifacts(self.store, claim.inputs))
        resume = self._lay_out("resume", claim.resume) if claim.resume else None
        threads = int(claim.environment.get("threads") or self.settings.job_threads)
        return attempt_process.Task(
            claim.job_id, claim.attempt, claim.kind, claim.spec, claim.device, threads,
            claim.environment.get("cpu_capability"), str(self.directory), inputs, resume,
            attempt_process.task_done(done),
        )  # fmt: skip

    def _lay_out(self, name: str, digest: str) -> str:
        path = self.directory / name
        path.mkdir(parents=True)
        materialise(self.store, digest, path, self._renew)
        return str(path)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def kill_group(process: BaseProcess) -> None:
    """End a child and everything that it started."""
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(10)
