"""Crashes in embedded mode."""

from collections.abc import Iterator

import pytest

from tests.faults.cases import Crashes
from tests.faults.keeper import Keeper


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with Keeper(tmp_path_factory.mktemp("faults") / "home", HUSAI_LEASE_SECONDS="2") as keeper:
        yield keeper


class TestEmbedded(Crashes):
    """SQLite and the local worker."""
