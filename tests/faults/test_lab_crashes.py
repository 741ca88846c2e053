"""Crashes in lab mode."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.cases import FAULTS, POINTS, Crashes, kill_at
from tests.faults.lab import Lab
from tests.servers import pairs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "home", pairs()[0], HUSAI_LEASE_SECONDS="2") as lab:
        yield lab


class TestLab(Crashes):
    """Postgres, Redis and Celery workers."""

    @pytest.mark.parametrize("point", POINTS[::3] if FAULTS == "some" else POINTS)
    def test_a_kill_at_every_point_changes_nothing(
        self, service: Lab, faultless: dict[str, Any], undisturbed: dict[str, Any], point: str
    ) -> None:
        kill_at(service, faultless, undisturbed, point)
