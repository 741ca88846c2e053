"""What operators send and read as JSON: keys, login codes, queues, workers, health and the log of decisions."""

from typing import Literal

from pydantic import BaseModel, Field

from api.fields import Name, Scope, Time
from api.schemas import Page, Strict


class KeyRequest(Strict):
    """A new API key for `owner` (by default yourself), who is made with `role` (by default researcher) if new."""

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=4)
    owner: Name | None = None
    role: Literal["researcher", "ci", "admin"] | None = None
    expires_in_days: float | None = Field(default=None, gt=0, le=36500)


class Key(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    owner: str
    prefix: str
    scopes: list[str]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    browsers: int = Field(default=0, description="how many browsers are signed in with it")


class NewKey(Key):
    """A new key; `token` is shown this once."""

    token: str


class Keys(Page):
    """A page of keys."""

    items: list[Key]


class LoginCode(BaseModel):
    """Signs a browser in at `/sign-in?code=…`, once."""

    code: str
    expires_in: int = Field(description="seconds")


class Queue(BaseModel):
    """Unfinished jobs by queue and state: of everybody, and yours."""

    queues: dict[str, dict[str, int]]
    mine: dict[str, dict[str, int]]


class Worker(BaseModel):
    """A worker process that has reported itself."""

    id: str
    host: str
    pid: int
    queues: list[str]
    device: str
    slots: int
    running: int = Field(description="attempts that it holds")
    problem: str | None = Field(default=None, description="why it takes no jobs at the moment")
    state: str = Field(description="ready, gone (it said so), or silent: it has not reported itself for a while")
    started_at: Time
    seen_at: Time


class Workers(Page):
    """Every known worker."""

    items: list[Worker]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether requests can be served, and by how many live workers."""

    status: Literal["ready", "not ready"]
    database: bool
    schema_at_head: bool
    storage: bool = Field(default=True, description="artifacts can be written")
    storage_age: float | None = Field(default=None, description="seconds since the artifact store was tried")
    chain: bool = Field(default=True, description="no decision was deleted, changed or moved")
    workers: int


class Chain(BaseModel):
    """Whether the log of decisions is whole."""

    ok: bool
    length: int
    head: str = Field(description="chain hash of the last decision")
    problems: list[str] = Field(description="one line for each fault")


class SigningKey(BaseModel):
    """A key that signs decisions, or did."""

    keyid: str = Field(description="SHA-256 of the raw key")
    public_key: str = Field(description="the raw key in base64")
    pem: str
    current: bool


class SigningKeys(Page):
    """Every key that ever signed here."""

    items: list[SigningKey]
