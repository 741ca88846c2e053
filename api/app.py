"""The application: routes, the middleware around them, and what they share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from api import errors, openapi
from api.deps import Context
from api.health import Health
from api.metrics import Metrics
from api.middleware import Shell
from api.pages import ROUTERS as PAGES
from api.routes import artifacts, audit, badges, events, gates, jobs, keys, kinds, login_codes, policies, system
from api.streams import Feeds
from api.waiting import Hub
from services import accounts, chain
from services.artifacts import Store
from services.db import Database, upgrade
from services.settings import Settings

DESCRIPTION = "Trains sparse autoencoders, measures whether they are stable, and decides whether they may be released."
ROUTERS = [
    *(
        module.router
        for module in (jobs, gates, policies, events, kinds, artifacts, badges, audit, keys, login_codes, system)
    ),
    system.root, badges.root, *PAGES,
]  # fmt: skip
"""In the order in which their routes are tried."""


def create_app(settings: Settings | None = None, address: str = "") -> FastAPI:
    """An application that brings the database up to date when it starts.

    Args:
        address: what the server listens on; browsers may use it as a host name.
    """
    settings = settings or Settings()
    database = Database(settings.database)
    metrics = Metrics(database)
    hub, store = Hub(database), Store(settings.artifacts)
    health = Health(database, store)
    context = Context(settings, database, store, hub, Feeds(hub), health, metrics, settings.hosts(address))
    app = FastAPI(
        title="HUSAI", version="1", description=DESCRIPTION, lifespan=_lifespan, docs_url=None, redoc_url=None,
        routes=[route for router in ROUTERS for route in router.routes],
    )  # fmt: skip
    app.state.context = context
    app.add_middleware(
        Shell, metrics=metrics, max_body=settings.max_body_bytes, max_upload=settings.max_upload_bytes
    )  # fmt: skip
    errors.install(app)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Bring a database of our own up to date, make the first key, and poll for waiting clients until the end."""
    context: Context = app.state.context
    if context.database.sqlite:
        upgrade(context.database.url)
    accounts.bootstrap(context.database, context.settings)
    context.mac_key = accounts.mac_key(context.settings)
    poller = asyncio.create_task(context.hub.run())
    checking = asyncio.create_task(_check_chain(context))
    try:
        yield
    finally:
        poller.cancel()
        with suppress(asyncio.CancelledError):
            await poller
        with suppress(SQLAlchemyError):
            await checking
        context.database.close()


async def _check_chain(context: Context) -> None:
    """Look beside the first requests whether the log of decisions is whole."""
    await run_in_threadpool(chain.check_at_start, context.database)
