"""Crashes in embedded mode."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.cases import POINTS, Crashes, kill_at
from tests.faults.keeper import Keeper


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keeper]:
    with Keeper(tmp_path_factory.mktemp("faults") / "home", HUSAI_LEASE_SECONDS="2") as keeper:
        yield keeper


class TestEmbedded(Crashes):
    """SQLite and the local worker."""

    @pytest.mark.parametrize("point", POINTS)
    def test_a_kill_at_every_point_changes_nothing(
        self, service: Keeper, faultless: dict[str, Any], undisturbed: dict[str, Any], point: str
    ) -> None:
        kill_at(service, faultless, undisturbed, point)
