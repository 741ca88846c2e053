"""What goes in and out as JSON; OpenAPI is made from these models. Those of keys, workers and health are apart."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from api.fields import Device, Digest, DigestPrefix, FilePath, JobId, Label, Name, Priority, Time
from husai_core.panels import AnyPanel
from husai_core.release import policy as release_policy
from services.states import State


class Strict(BaseModel):
    """A request body: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(BaseModel):
    """RFC 9457. `type` is stable; some problems carry more fields."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(pattern=r"^urn:husai:problem:[a-z-]+$")
    title: str
    status: int
    detail: str


class OutputOf(Strict):
    """An input that is what another job produces: all of an output, or the artifact at `index`."""

    job: JobId
    output: Name
    index: int | None = Field(default=None, ge=0, le=9999)


class JobRequest(Strict):
    """A job to run. `kind` and `spec` are those of one job kind."""

    kind: str
    spec: Any = {}
    inputs: dict[Name, Annotated[list[DigestPrefix | OutputOf], Field(max_length=1000)] | DigestPrefix | OutputOf] = {}
    labels: list[Label] = Field(default=[], max_length=32)
    priority: Priority = "interactive"
    device: Device = "auto"
    reuse: Literal["allow", "never"] = "allow"


class Progress(BaseModel):
    """Work done so far, in `unit`."""

    done: float
    total: float
    unit: str
    rate: float | None = Field(default=None, description="work per second during the last minute, while it runs")
    seconds_left: float | None = Field(default=None, description="time to the end at this rate")


class Asset(BaseModel):
    """Something that has to be on the machine that runs a job."""

    name: str
    how: str = Field(description="how to bring it there")


class JobBase(BaseModel):
    """A job without what may be large."""

    id: str
    kind: str
    summary: str = Field(description="what its spec changes of the kind's defaults, in words")
    state: State
    reason: str | None
    detail: str | None
    name: str | None = Field(description="the job's name inside its study")
    parent: str | None = Field(description="the study that asked for this job")
    owner: str
    labels: list[str]
    priority: Priority
    device: str
    queue: str
    progress: Progress | None
    assets: list[Asset] | None = Field(default=None, description="what a blocked job waits for")
    attempt: int
    retry_of: str | None
    reused_from: str | None = Field(description="the job whose result this is; somebody else's has no id here")
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    version: int = Field(description="grows with every change")


class Job(JobBase):
    """One request of one kind, where it stands and what came of it."""

    spec: dict[str, Any]
    inputs: dict[str, Any]
    reuse: Literal["allow", "never"]
    digest: str | None = Field(description="identity of the computation; null until its inputs are known")
    environment: dict[str, Any]
    outputs: dict[str, list[str]] = Field(description="artifact digests by output name")
    result: dict[str, Any] | None


class JobRow(JobBase):
    """A job in a list. `spec`, `inputs` and `outputs` are there when `include` names them; results never are."""

    spec: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    outputs: dict[str, list[str]] = {}


class Page(BaseModel):
    """One page of a list, newest first."""

    next: str | None = Field(default=None, description="cursor of the next page; null on the last one")


class Jobs(Page):
    """A page of jobs."""

    items: list[JobRow]


class ChildPanels(BaseModel):
    """What there is to see of one child of a study."""

    job: str
    name: str | None
    kind: str
    state: State
    panels: list[AnyPanel]


class JobPanels(BaseModel):
    """What there is to see of a job: its kind's panels, and those of a study's children."""

    job: str
    kind: str
    title: str = Field(description="what question the kind answers")
    state: State
    panels: list[AnyPanel] = Field(description="empty before the job has a result")
    children: list[ChildPanels]


class Estimate(BaseModel):
    """What work will take. `seconds` on one worker, job after job; null where a kind's speed is not known here yet."""

    units: float = Field(description="multiply-adds")
    seconds: float | None
    at_most: bool = Field(description="some of the work may stop early")
    memory_bytes: float = Field(description="at once")
    written_bytes: float
    basis: str = Field(description="what the time rests on, and what it leaves out")


class Cell(BaseModel):
    """One job that a submission would run. `a/b` is job `b` of the study `a`, whose estimate contains it."""

    name: str
    kind: str
    spec: dict[str, Any]
    inputs: dict[str, Any]
    estimate: Estimate | None = None


class Plan(BaseModel):
    """What a submission would do."""

    cells: list[Cell]
    estimate: Estimate | None
    missing: list[str | Asset] = Field(description="inputs that are not given, and assets that this host lacks")


class Event(BaseModel):
    """Something that happened to a job."""

    id: int
    at: Time
    type: str
    data: dict[str, Any]


class Events(BaseModel):
    """Events in order; `next` is the id to send as `after`."""

    items: list[Event]
    next: int


class Node(BaseModel):
    """A job or an artifact."""

    id: str
    type: Literal["job", "artifact"]
    label: str


class Lineage(BaseModel):
    """Where a job's inputs come from and where its outputs went; edges are [from, to, role]."""

    nodes: list[Node]
    edges: list[tuple[str, str, str]]


class PortDocument(BaseModel):
    """One named input or output."""

    type: str
    help: str
    many: bool
    required: bool
    at_least: int


class Kind(BaseModel):
    """A job kind with JSON Schemas of its spec and result."""

    name: str
    help: str
    queue: str
    is_study: bool
    spec_schema: dict[str, JsonValue]
    result_schema: dict[str, JsonValue]
    inputs: dict[str, PortDocument]
    outputs: dict[str, PortDocument]
    presets: dict[str, dict[str, JsonValue]] = Field(description="spec fields by preset name")
    statistics: dict[str, tuple[float | None, float | None]] = Field(
        description="what a release policy can read of a result, with the least and the largest value; null: no limit"
    )


class Kinds(Page):
    """Every job kind."""

    items: list[Kind]


class FileEntry(BaseModel):
    """One file of an artifact."""

    sha256: str
    size: int


class Artifact(BaseModel):
    """An artifact with its files."""

    sha256: str
    type: str
    size: int
    files: dict[str, FileEntry]


class TreeRequest(Strict):
    """Makes one artifact of files that were uploaded one by one."""

    type: Literal["upload"] = "upload"
    files: dict[FilePath, Digest] = Field(
        min_length=1, max_length=1000, description="by name; one with slashes lies in folders"
    )

    @field_validator("files")
    @classmethod
    def _apart(cls, files: dict[FilePath, Digest]) -> dict[FilePath, Digest]:
        folders = {str(folder) for name in files for folder in PurePosixPath(name).parents}
        if both := sorted(folders & files.keys()):
            raise ValueError(f"{both[0]} cannot be a file and a folder")
        return files


class ArtifactRow(BaseModel):
    """An artifact in a list."""

    sha256: str
    type: str
    size: int
    job: str | None = Field(description="the job of yours that produced it")
    created_at: Time


class Artifacts(Page):
    """A page of artifacts."""

    items: list[ArtifactRow]


class Candidate(BaseModel):
    """An SAE checkpoint that a gate may judge."""

    sha256: str
    siblings: list[str]
    job: str | None
    facts: dict[str, Any]
    public_badge: bool = Field(default=False, description="everybody may see its verdicts as badges")
    created_at: Time


class BadgeRequest(Strict):
    """Whether everybody may see the verdicts about a candidate as badges."""

    public: bool


class Candidates(Page):
    """A page of candidates."""

    items: list[Candidate]


MOST_VERSIONS = 2**31 - 1


class PolicyRequest(release_policy.Policy):
    """A policy of the lab. A rule reads a statistic of its evidence, or says with `accepts` whose SAEs may pass."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    version: int = Field(ge=1, le=MOST_VERSIONS)
    rules: tuple[release_policy.Rule, ...] = Field(min_length=1, max_length=100)


class Policy(BaseModel):
    """A release policy, named by its digest."""

    name: str
    version: int
    title: str
    digest: str
    confidence: float
    max_age_days: float | None
    two_valued: bool
    rules: list[dict[str, JsonValue]]
    packaged: bool = Field(description="it comes with HUSAI, and is not the lab's own")
    added_at: Time | None
    retired_at: Time | None = Field(description="since when it decides nothing more")


class Policies(Page):
    """Every policy, the newest version of each."""

    items: list[Policy]


class DecisionRequest(Strict):
    """Asks a policy about a candidate. Every known result about it is used, and what is given as `evidence` besides."""

    candidate: DigestPrefix
    evidence: list[DigestPrefix] | None = Field(default=None, max_length=1000)


class Decision(BaseModel):
    """A recorded decision. Immutable."""

    id: str
    seq: int
    policy: str
    policy_digest: str
    candidate: str
    verdict: Literal["pass", "fail", "inconclusive"]
    job: str | None
    as_of: str
    rules: list[dict[str, Any]]
    reasons: list[str]
    created_at: Time


class Decisions(Page):
    """A page of decisions."""

    items: list[Decision]
