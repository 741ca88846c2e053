import json
from itertools import permutations
from pathlib import Path
from typing import get_args

import pytest

from husai_core.evidence import Evidence, Provenance, weakest

OLD = sorted((Path(__file__).parent / "kinds" / "old_results").glob("stress.*.json"))
BARE = {"subject": [], "converged": True, "leaks_label": False, "statistics": {}}


def test_the_weakest_provenance_holds_for_all() -> None:
    ordered = get_args(Provenance)
    for some in permutations(ordered, 2):
        assert ordered.index(weakest(some)) == max(map(ordered.index, some))


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.name)
def test_results_of_earlier_versions_are_readable_and_know_their_origin(path: Path) -> None:
    document = json.loads(path.read_bytes())
    fields = {name: document[name] for name in Evidence.model_fields if name in document}
    evidence = Evidence.model_validate(fields)
    assert (evidence.changes, evidence.provenance, evidence.retrained) == ({}, None, False)
    assert evidence.origin == "trained here"


def test_what_was_imported_before_is_claimed() -> None:
    assert Evidence.model_validate(BARE | {"imported": True}).origin == "claimed"
    assert Evidence.model_validate(BARE | {"imported": True, "provenance": "attested"}).origin == "attested"
