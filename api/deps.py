"""What endpoints ask for: the application's context, and a caller whose key has the scope they need."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, params
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import browsers, schemas
from api.health import Health
from api.metrics import Metrics
from api.refusals import Refusals
from api.streams import Feeds
from api.waiting import Hub
from services import accounts
from services.accounts import Principal
from services.artifacts import Store
from services.db import Database
from services.failpoints import failpoint
from services.problems import Problem
from services.settings import Settings

KEY_SECONDS = 2.0
T = TypeVar("T")


@dataclass
class Context:
    """What one application is made of."""

    settings: Settings
    database: Database
    store: Store
    hub: Hub
    feeds: Feeds
    health: Health
    metrics: Metrics
    hosts: frozenset[str] = frozenset()
    mac_key: bytes = b""
    """Whether the log of decisions was whole when it was looked at last."""
    decisions: dict[tuple[str, str, bool], schemas.Decision] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    _keys: dict[str, tuple[Principal, float]] = field(default_factory=dict)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A write transaction."""
        with self.database.write() as session:
            yield session
        failpoint("api.committed")

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a write transaction; once more when another process made the same row first."""
        try:
            with self.write() as session:
                return work(session)
        except IntegrityError:
            with self.write() as session:
                return work(session)

    async def principal(self, token: str) -> Principal:
        """Who holds this token. An answer is kept for two seconds, so other processes see a revocation as late."""
        name = hashlib.sha256(token.encode()).hexdigest()
        principal, until = self._keys.get(name, (None, 0.0))
        if principal is None or until < time.monotonic():
            principal = await run_in_threadpool(self._authenticate, token)
            if len(self._keys) >= 1024:
                self._keys.clear()
            self._keys[name] = (principal, time.monotonic() + KEY_SECONDS)
        return principal

    def forget_keys(self) -> None:
        """Ask the database about every key again."""
        self._keys.clear()

    def _authenticate(self, token: str) -> Principal:
        with self.database.read() as session:
            return accounts.authenticate(session, self.mac_key, token)


async def context(request: Request) -> Context:
    """The context that `create_app` made. This and other cheap dependencies are asynchronous: others cost a thread."""
    shared: Context = request.app.state.context
    return shared


Ctx = Annotated[Context, Depends(context)]
bearer = HTTPBearer(auto_error=False, bearerFormat="husai_<id>_<secret>", description="An API key.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def holder(request: Request, credentials: Credentials) -> Principal:
    """Whoever holds the key that came with the request, or is signed in with the browser that sent it.

    Raises:
        Problem: 401 `bad-key`, `expired-key`, `revoked-key` or `signed-out`.
    """
    shared = await context(request)
    if credentials is None:
        return await browsers.principal(request, shared)
    return await shared.principal(credentials.credentials)


Holder = Annotated[Principal, Depends(holder)]


async def key_holder(credentials: Credentials, context: Ctx) -> Principal:
    """Whoever holds the key that came with the request; a browser that is signed in does not count.

    Raises:
        Problem: 401 `bad-key`, `expired-key` or `revoked-key`.
    """
    if credentials is None:
        raise browsers.key_missing()
    return await context.principal(credentials.credentials)


KeyHolder = Annotated[Principal, Depends(key_holder)]


def _holder_of(scope: str) -> Callable[[Request, Credentials], Awaitable[Principal]]:
    async def principal(request: Request, credentials: Credentials) -> Principal:
        caller = await holder(request, credentials)
        accounts.require(caller, scope)
        return caller

    return principal


Reader = Annotated[Principal, Depends(_holder_of("read"))]
Submitter = Annotated[Principal, Depends(_holder_of("submit"))]
Gatekeeper = Annotated[Principal, Depends(_holder_of("gate"))]
Admin = Annotated[Principal, Depends(_holder_of("admin"))]


async def known_query(request: Request) -> None:
    """Refuse query parameters that the endpoint does not have.

    Raises:
        Problem: 422 `invalid-request`.
    """
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        detail = "; ".join(f"{name[:64]}: unknown query parameter" for name in unknown[:5])
        raise Problem(422, "invalid-request", "Invalid request", detail)


def v1_router(tag: str, prefix: str = "", dependencies: Sequence[params.Depends] = ()) -> APIRouter:
    """A router whose routes go into the application as they are: one that is included is searched again and again."""
    return APIRouter(prefix=f"/v1{prefix}", tags=[tag], dependencies=[Depends(known_query), *dependencies])
