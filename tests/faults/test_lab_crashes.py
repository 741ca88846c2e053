"""Crashes in lab mode."""

from collections.abc import Iterator

import pytest

from tests.faults.cases import Crashes
from tests.faults.lab import Lab
from tests.servers import pairs


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "home", pairs()[0], HUSAI_LEASE_SECONDS="2") as lab:
        yield lab


class TestLab(Crashes):
    """Postgres, Redis and Celery workers."""
