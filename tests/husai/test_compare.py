from typing import Any

import pytest

from husai.compare import Comparison, Row, differences, essence, lasting
from husai.errors import Exit

EQUAL = Row("sae", "saes[0]", "a", "a", "equal")
OTHER = Row("sae", "saes[1]", "a", "b", "different")


@pytest.mark.parametrize(
    ("rows", "surroundings", "code"),
    [
        ([EQUAL], [], Exit.OK),
        ([EQUAL], ["capability.cpu.model"], Exit.OK),
        ([EQUAL, OTHER], [], Exit.FAIL),
        ([EQUAL, OTHER], ["capability.cpu.model"], Exit.INCONCLUSIVE),
    ],
)
def test_only_other_surroundings_excuse_a_difference(rows: list[Row], surroundings: list[str], code: Exit) -> None:
    assert Comparison(rows, surroundings).exit_code == code


def test_another_version_of_the_code_is_told_from_other_hardware() -> None:
    assert Comparison([OTHER], ["code.commit", "digest"]).other_version
    assert not Comparison([OTHER], ["capability.cpu.model", "digest"]).other_version
    assert not Comparison([OTHER], []).other_version


@pytest.mark.parametrize(
    ("first", "second", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, ["a.b[1]"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({"a": 1}, {"a": 1.0}, ["a"]),
        ({"a": True}, {"a": 1}, ["a"]),
        (1, 2, ["all of it"]),
        ({"x": [{"produced_at": 1.0, "v": 2}]}, {"x": [{"produced_at": 9.0, "v": 2}]}, []),
        ({"decision": "old"}, {"decision": "new"}, []),
        ({"decision": "new"}, {"decision": "old"}, ["decision"]),
    ],
)
def test_differences_are_named_by_path(first: Any, second: Any, paths: list[str]) -> None:
    assert list(differences(first, second, {"old": "new"})) == paths


def test_a_manifest_is_compared_without_its_run_and_surroundings() -> None:
    manifest = {
        "spec": {"k": 1},
        "wall_seconds": 1.0,
        "job_id": "a",
        "capability": {"threads": 1},
        "outputs": {"saes": ["s"]},
    }
    other = {**manifest, "wall_seconds": 2.0, "job_id": "b", "capability": {"threads": 2}}
    assert essence({"manifest.json": manifest}) == essence({"manifest.json": other})
    assert essence({"manifest.json": manifest}) != essence({"manifest.json": {**manifest, "spec": {"k": 2}}})
    assert essence({"result.json": manifest}) == {"result.json": manifest}


def test_tables_and_figures_are_compared_without_instants_and_with_the_digests_of_equals() -> None:
    old, new = "a" * 64, "b" * 64
    first = {"1.csv": f"evidence,produced (UTC),sha256\nood,18:50,{old}\n", "2.svg": f"<text>{old[:12]}</text>"}
    second = {"1.csv": f"evidence,produced (UTC),sha256\nood,19:07,{new}\n", "2.svg": f"<text>{new[:12]}</text>"}
    assert lasting(first, {old: new}) == lasting(second, {})
    assert lasting(first, {}) != lasting(second, {})
    assert lasting(first, {old: new}) != lasting(second | {"1.csv": "evidence\nood\n"}, {})
