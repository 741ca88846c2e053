"""A lab's own policies, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from husai_core import kinds
from husai_core.release.policy import Policy, load
from services import accounts, jobs, policies
from services.db import Database
from services.problems import Problem
from services.settings import Settings


def lab(version: int = 1, name: str = "lab", **changes: Any) -> Policy:
    return load("internal").model_copy(update={"name": name, "version": version, **changes})


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.database)
    yield opened
    opened.close()


@pytest.fixture
def owner(database: Database) -> str:
    with database.write() as session:
        return accounts.create_owner(session, "ada", "admin").id


def refused(slug: str) -> Any:
    return pytest.raises(Problem, check=lambda problem: problem.slug == slug)


def test_a_version_is_kept_as_it_was_added(database: Database, owner: str) -> None:
    with database.write() as session:
        policies.add(session, owner, lab())
        policies.add(session, owner, lab(3, confidence=0.9))
    with database.read() as session:
        assert policies.active(session, "lab") == lab(3, confidence=0.9)
        assert policies.entry(session, "lab", 1).policy.digest == lab().digest
        listed = {entry.policy.name: entry for entry in policies.entries(session)}
        assert (listed["lab"].policy.version, listed["lab"].packaged, listed["strict"].packaged) == (3, False, True)
        with refused("unknown-policy"):
            policies.entry(session, "lab", 2)
        with refused("unknown-policy"):
            policies.entry(session, "strict", 1)


def test_a_version_must_be_higher_and_a_packaged_name_is_taken(database: Database, owner: str) -> None:
    with database.write() as session:
        policies.add(session, owner, lab(2))
        for version in (1, 2):
            with refused("policy-version"):
                policies.add(session, owner, lab(version))
        with refused("policy-taken"):
            policies.add(session, owner, lab(9, name="strict"))
        with refused("policy-taken"):
            policies.retire(session, "strict")


def test_a_retired_policy_decides_nothing_until_a_higher_version_comes(database: Database, owner: str) -> None:
    gate = kinds.get("release.gate")
    with database.write() as session:
        policies.add(session, owner, lab())
        entry = policies.retire(session, "lab")
        assert entry.retired_at is not None
        assert policies.entry(session, "lab").policy == lab(), "its decisions can still be read"
        for refuse in (
            lambda: policies.active(session, "lab"),
            lambda: policies.retire(session, "lab"),
            lambda: jobs.validate_spec(gate, {"policy": "lab"}, session),
        ):
            with refused("retired-policy"):
                refuse()
        policies.add(session, owner, lab(2))
        assert policies.active(session, "lab").version == 2


@pytest.mark.parametrize("kind", ["release.gate", "study.pipeline"])
def test_a_spec_gets_the_policy_that_it_names_in_full(database: Database, owner: str, kind: str) -> None:
    with database.write() as session:
        policies.add(session, owner, lab())
        spec = jobs.validate_spec(kinds.get(kind), {"policy": "lab"}, session).model_dump(mode="json")
        assert Policy.model_validate(spec["policy_document"]) == lab()
        assert jobs.validate_spec(kinds.get(kind), spec, session).model_dump(mode="json") == spec
        packaged = jobs.validate_spec(kinds.get(kind), {"policy": "strict"}, session).model_dump(mode="json")
        assert packaged["policy_document"] is None
        with refused("unknown-policy"):
            jobs.validate_spec(kinds.get(kind), {"policy": "lenient"}, session)


def test_nobody_brings_a_policy_of_their_own_under_the_labs_name(database: Database, owner: str) -> None:
    gate = kinds.get("release.gate")
    with database.write() as session:
        policies.add(session, owner, lab())
        for other in (lab(title="mine"), lab(2)):
            with refused("policy-changed"):
                jobs.validate_spec(gate, {"policy": "lab", "policy_document": other.model_dump(mode="json")}, session)
        forged = lab(name="mine").model_dump(mode="json")
        with refused("unknown-policy"):
            jobs.validate_spec(gate, {"policy": "mine", "policy_document": forged}, session)
        with refused("invalid-spec"):
            taken = lab(name="strict").model_dump(mode="json")
            jobs.validate_spec(gate, {"policy": "strict", "policy_document": taken}, session)
