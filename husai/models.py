"""What the service sends, as frozen dataclasses. `raw` keeps the document itself; unknown members stay only there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

FINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out"})


@dataclass(frozen=True, kw_only=True)
class Document:
    """Base: built from a JSON object, of which it takes the members that it knows."""

    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """The document in a JSON object."""
        known = {f.name for f in fields(cls)} - {"raw"}
        return cls(raw=raw, **{name: value for name, value in raw.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Job(Document):
    """One request of one kind; times are RFC 3339 in UTC."""

    id: str
    kind: str
    state: str
    version: int
    summary: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, list[Any]] = field(default_factory=dict)
    outputs: Mapping[str, list[str]] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    reason: str | None = None
    detail: str | None = None
    labels: list[str] = field(default_factory=list)
    priority: str = "interactive"
    device: str = "auto"
    owner: str | None = None
    parent: str | None = None
    name: str | None = None
    retry_of: str | None = None
    reuse: str = "allow"
    reused_from: str | None = None
    digest: str | None = None
    attempt: int | None = None
    progress: Mapping[str, Any] | None = None
    assets: list[Mapping[str, Any]] | None = None
    queue: str | None = None
    environment: Mapping[str, Any] | None = None
    created_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def final(self) -> bool:
        """True when the state never changes again."""
        return self.state in FINAL

    @property
    def sources(self) -> list[str]:
        """Ids of the jobs whose outputs are this one's inputs."""
        return [source["job"] for port in self.inputs.values() for source in port if isinstance(source, Mapping)]

    @property
    def is_blocked(self) -> bool:
        """True where it waits for something that this machine lacks, or for a job of its own that does."""
        return self.state == "blocked" or (self.state == "waiting" and self.reason == "child.blocked")

    @property
    def why(self) -> str:
        """State, reason and detail in one line."""
        text = self.state + (f" ({self.reason})" if self.reason else "") + (f": {self.detail}" if self.detail else "")
        return " ".join(text.split())


@dataclass(frozen=True, kw_only=True)
class Event(Document):
    """Something that happened to a job: `state`, `attempt`, `progress`, `metrics`, `log` or `checkpoint`."""

    id: int
    type: str
    data: Mapping[str, Any]
    at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Artifact(Document):
    """Immutable files under one digest. `files` maps a name to its `sha256` and `size`, where they were asked for."""

    sha256: str
    type: str
    size: int | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    created_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Kind(Document):
    """A job kind: what it takes and what it delivers."""

    name: str
    help: str = ""
    queue: str = ""
    is_study: bool = False
    spec_schema: Mapping[str, Any] = field(default_factory=dict)
    result_schema: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    statistics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Worker(Document):
    """A worker process; its state is `ready`, `gone` or `silent`."""

    id: str
    device: str
    state: str
    queues: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Candidate(Document):
    """An SAE checkpoint that a gate may judge; `siblings` are its other seeds."""

    sha256: str
    siblings: list[str] = field(default_factory=list)
    job: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    public_badge: bool = False
    created_at: str | None = None

    @property
    def hook_name(self) -> str:
        """Where in its model it reads; empty where nothing says it."""
        return str((self.facts.get("husai") or {}).get("hook_name") or "")


@dataclass(frozen=True, kw_only=True)
class Policy(Document):
    """A versioned list of rules, named by its digest. `packaged` ones come with HUSAI, others are the lab's own."""

    name: str
    version: int
    digest: str
    title: str = ""
    confidence: float = 0.95
    max_age_days: float | None = None
    two_valued: bool = False
    rules: list[Mapping[str, Any]] = field(default_factory=list)
    packaged: bool = True
    added_at: str | None = None
    retired_at: str | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What was added: the policy itself, without what the service says of it."""
        names = ("name", "version", "title", "confidence", "max_age_days", "two_valued", "rules")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Decision(Document):
    """An immutable verdict of a policy about a candidate."""

    id: str
    policy: str
    candidate: str
    verdict: str
    seq: int | None = None
    policy_digest: str | None = None
    job: str | None = None
    as_of: str | None = None
    rules: list[Mapping[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    created_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Key(Document):
    """An API key; `token` is shown once, when the key is made."""

    id: str
    prefix: str
    name: str = ""
    owner: str = ""
    scopes: list[str] = field(default_factory=list)
    token: str | None = field(default=None, repr=False)
    created_at: str | None = None
    expires_at: str | None = None
    revoked_at: str | None = None
    browsers: int = 0


@dataclass(frozen=True, kw_only=True)
class SigningKey(Document):
    """A public key (Ed25519) that decisions are signed with."""

    keyid: str
    pem: str
    public_key: str = ""
    current: bool = True


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a submission would start: its cells, an estimate if there is one, and the assets it lacks."""

    cells: list[Mapping[str, Any]]
    estimate: Mapping[str, Any] | None
    missing: list[Any]
