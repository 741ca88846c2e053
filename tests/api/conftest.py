"""Fixtures: one server process for most tests, and callers of it."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from services.db import upgrade
from tests.api.serving import MAX_UPLOAD, Server, start, stop

SEEDS = itertools.count(1000)


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that most tests share, on a database of either kind."""
    variables = {"HUSAI_MAX_UPLOAD_BYTES": str(MAX_UPLOAD), "HUSAI_DEVICE": "cpu"}
    if request.param == "postgres":
        variables["HUSAI_DATABASE_URL"] = request.getfixturevalue("postgres").create("api")
        upgrade(variables["HUSAI_DATABASE_URL"])
    running = start(tmp_path_factory.mktemp("home"), **variables)
    yield running
    stop(running)


@pytest.fixture
def admin(server: Server) -> httpx.Client:
    """A client with the local administrator's key."""
    return server.admin


@pytest.fixture
def ada(server: Server) -> httpx.Client:
    """A researcher."""
    return server.client(server.make_key("ada", ["read", "submit", "gate"]))


@pytest.fixture
def submit(ada: httpx.Client) -> Callable[..., dict[str, Any]]:
    """Submit a training job that equals no other, as the researcher."""

    def send(client: httpx.Client | None = None, **fields: Any) -> dict[str, Any]:
        body = {"kind": "train.transformer", "spec": {"seed": next(SEEDS)}} | fields
        response = (client or ada).post("/v1/jobs", json=body)
        assert response.status_code == 202, response.text
        job: dict[str, Any] = response.json()
        return job

    return send
