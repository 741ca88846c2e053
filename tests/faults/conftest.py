"""What the service of a module gives when nothing disturbs it."""

from typing import Any

import pytest

from tests.faults.chains import LONG, chain, outcome, submit_rows, submit_saes
from tests.faults.keeper import Keeper


@pytest.fixture(scope="module")
def faultless(service: Keeper) -> dict[str, Any]:
    return chain(service, "faultless")


@pytest.fixture(scope="module")
def undisturbed(service: Keeper) -> dict[str, Any]:
    rows = submit_rows(service, "undisturbed")
    return outcome(service.finished(submit_saes(service, "undisturbed", rows, LONG)["id"]))
