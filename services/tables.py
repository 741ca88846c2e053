"""The tables. Times are Unix seconds by the database's clock."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, Integer, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from services.states import State

ACTIVE = "state IN ('waiting', 'queued', 'running', 'blocked')"
ASKED_FOR = f"parent_id IS NULL AND {ACTIVE}"
"""Unfinished jobs that count towards their owner's quota: those that no study asked for."""
STATE = Enum(State, native_enum=False, length=16, values_callable=lambda states: [state.value for state in states])
OPTIONAL_JSON = JSON(none_as_null=True)
AUTO = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can drop them on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, list[str]: JSON, State: STATE}  # noqa: RUF012


class Owner(Base):
    """A person or robot that submits jobs."""

    __tablename__ = "owners"
    id: Mapped[str] = mapped_column(String(24), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    created_at: Mapped[float]
    served_at: Mapped[float | None]
    """When a worker last claimed work of this owner."""


class ApiKey(Base):
    """An API key; only an HMAC of the secret is kept."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(String(24), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    mac: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class Execution(Base):
    """One computation of one digest, shared by every job attached to it."""

    __tablename__ = "executions"
    __table_args__ = (
        Index("ix_executions_claim", "state", "queue", "device", "priority", "owner_id", "id"),
        Index("ix_executions_speed", "kind", "device", "finished_at"),
        Index("uq_executions_active_digest", "digest", unique=True,
              sqlite_where=text(f"shared AND {ACTIVE}"), postgresql_where=text(f"shared AND {ACTIVE}")),
    )  # fmt: skip
    id: Mapped[str] = mapped_column(String(24), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str]
    queue: Mapped[str]
    spec: Mapped[dict[str, Any]]
    inputs: Mapped[dict[str, Any]]
    device: Mapped[str]
    environment: Mapped[dict[str, Any]]
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    priority: Mapped[int]
    shared: Mapped[bool]
    state: Mapped[State]
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None]
    boot_id: Mapped[str | None]
    lease_until: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any] | None]
    assets: Mapped[list[Any] | None] = mapped_column(OPTIONAL_JSON)
    """What a blocked execution waits for: `{"name", "how"}` of each asset."""
    work: Mapped[dict[str, Any] | None] = mapped_column(OPTIONAL_JSON)
    """The estimate of its work (`Work` without `outputs`), where its kind makes one."""
    resume: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    version: Mapped[int] = mapped_column(default=1)


class Job(Base):
    """One request by one owner. It follows its execution's state once it has one."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_owner_id_id", "owner_id", "id"),
        Index("ix_jobs_asked_for", "owner_id", sqlite_where=text(ASKED_FOR), postgresql_where=text(ASKED_FOR)),
    )
    id: Mapped[str] = mapped_column(String(24), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    kind: Mapped[str] = mapped_column(index=True)
    spec: Mapped[dict[str, Any]]
    inputs: Mapped[dict[str, Any]]
    labels: Mapped[list[str]]
    device: Mapped[str]
    environment: Mapped[dict[str, Any]]
    priority: Mapped[int]
    reuse: Mapped[bool]
    private: Mapped[bool]
    state: Mapped[State] = mapped_column(index=True)
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    execution_id: Mapped[str | None] = mapped_column(ForeignKey("executions.id"), index=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("executions.id"), index=True)
    name: Mapped[str | None]
    reused_from: Mapped[str | None] = mapped_column(String(24))
    retry_of: Mapped[str | None] = mapped_column(String(24))
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    version: Mapped[int] = mapped_column(default=1)
    execution: Mapped[Execution | None] = relationship(foreign_keys=[execution_id], lazy="raise")
    """Set where the two are bound, so that the execution is written first and both are at hand for the answer."""


class Awaited(Base):
    """A job waits for another job's output."""

    __tablename__ = "awaited"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    source_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class Attempt(Base):
    """One try of an execution; its number is the fencing token."""

    __tablename__ = "attempts"
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None]


class Event(Base):
    """Something that happened, to one job (`job_id`) or to an execution and so to every job attached to it."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_execution_id_type", "execution_id", "type"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(AUTO, primary_key=True, autoincrement=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    execution_id: Mapped[str | None] = mapped_column(ForeignKey("executions.id"))
    at: Mapped[float]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    job: Mapped[Job | None] = relationship(lazy="raise")
    """Set for an event of a job, so that the job is written first."""


class Outbox(Base):
    """A wake-up message that is still to be sent to the workers of a queue."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(AUTO, primary_key=True, autoincrement=True)
    queue: Mapped[str]
    execution_id: Mapped[str]


class Output(Base):
    """One artifact that an execution produced."""

    __tablename__ = "outputs"
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), index=True)


class Result(Base):
    """The one result of a succeeded execution."""

    __tablename__ = "results"
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), primary_key=True)
    result: Mapped[dict[str, Any]]


class Subject(Base):
    """A result speaks about a checkpoint, so it may be evidence about it."""

    __tablename__ = "subjects"
    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), primary_key=True)


class ArtifactRow(Base):
    """An artifact known to the store: the digest of its index, and who made it first."""

    __tablename__ = "artifacts"
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    execution_id: Mapped[str | None] = mapped_column(ForeignKey("executions.id"))
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    created_at: Mapped[float] = mapped_column(index=True)


class Upload(Base):
    """Somebody who uploaded an artifact that was known already."""

    __tablename__ = "uploads"
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"), primary_key=True, index=True)


class Idempotency(Base):
    """An owner's Idempotency-Key and the job that it made."""

    __tablename__ = "idempotency"
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))


class Candidate(Base):
    """An SAE checkpoint that a gate may judge, with its sibling seeds."""

    __tablename__ = "candidates"
    sha256: Mapped[str] = mapped_column(ForeignKey("artifacts.sha256"), primary_key=True)
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"))
    siblings: Mapped[list[str]]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[float]
    public_badge: Mapped[bool] = mapped_column(default=False)
    """Anybody may see its verdicts, without a key."""


class Decision(Base):
    """An immutable signed decision, chained to the one before it."""

    __tablename__ = "decisions"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(24), unique=True)
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), unique=True)
    policy: Mapped[str]
    policy_digest: Mapped[str] = mapped_column(String(64))
    candidate: Mapped[str] = mapped_column(String(64), index=True)
    verdict: Mapped[str]
    envelope: Mapped[dict[str, Any]]
    public_key: Mapped[str]
    previous: Mapped[str]
    chain: Mapped[str]
    judged_at: Mapped[float]
    created_at: Mapped[float]


class LabPolicy(Base):
    """A version of a policy that the lab added. Only `retired_at` ever changes."""

    __tablename__ = "policies"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any]]
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    added_at: Mapped[float]
    retired_at: Mapped[float | None]


class ChainHead(Base):
    """The last decision of the chain, kept apart from the decisions so that a deleted last one is missed. One row."""

    __tablename__ = "chain_head"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    chain: Mapped[str] = mapped_column(String(64))


class SigningKey(Base):
    """A key that signs decisions, or did."""

    __tablename__ = "signing_keys"
    keyid: Mapped[str] = mapped_column(String(64), primary_key=True)
    public_key: Mapped[str]
    since: Mapped[float]
    """When a worker last started to sign with it; the newest is the current one."""


class Worker(Base):
    """A worker process that has reported itself."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(primary_key=True)
    boot_id: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[list[str]]
    device: Mapped[str]
    slots: Mapped[int]
    started_at: Mapped[float]
    seen_at: Mapped[float]
    state: Mapped[str]
    problem: Mapped[str | None]
    """Why it claims nothing at the moment."""


class Counter(Base):
    """A number that only grows, kept for `/metrics`."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class WebSession(Base):
    """A browser that is signed in with a key. Only an HMAC of its cookie is kept; it ends with its key."""

    __tablename__ = "sessions"
    mac: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)


class LoginCode(Base):
    """A code that signs a browser in once, within a minute. Only an HMAC of it is kept."""

    __tablename__ = "login_codes"
    mac: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), index=True)
    expires_at: Mapped[float] = mapped_column(index=True)
