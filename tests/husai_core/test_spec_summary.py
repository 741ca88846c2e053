"""What a spec changes of its defaults, for every kind by its schema alone."""

import pytest

from husai_core import kinds
from husai_core.spec_summary import LONGEST, summary


def words(kind: str, spec: dict) -> str:
    """The summary of a spec as it is stored, with all defaults filled in."""
    model = kinds.get(kind).spec
    return summary(model.model_validate(spec).model_dump(mode="json"), model.model_json_schema())


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        ("train.sae", {}, ""),
        ("train.sae", {"recipe": {"d_sae": 32, "k": 3, "lr": 0.0125}, "seeds": [4, 5]},
         "d_sae 32 · k 3 · lr 0.0125 · seeds 4, 5"),
        ("train.sae", {"variants": [{"k": 4}, {"k": 5, "lr": 0.5}]}, "variants k 4, k 5 lr 0.5"),
        ("train.activations", {"source": "synthetic", "world": {"rows": 100}, "structureless": True},
         "source synthetic · structureless yes · rows 100"),
        ("stress.ood", {"recipe": {"k": 3}}, "k 3"),
        ("study.pipeline", {"sae": {"recipe": {"k": 3}}}, "sae recipe k 3"),
        ("release.gate", {"as_of": "2026-01-01T00:00:00Z"}, ""),
    ],
)  # fmt: skip
def test_only_what_differs_is_said(kind: str, spec: dict, text: str) -> None:
    assert words(kind, spec) == text


def test_a_summary_is_short_and_tells_groups_apart() -> None:
    schema = {
        "$defs": {"G": {"properties": {"k": {"default": 1}}}},
        "properties": {"a": {"$ref": "#/$defs/G", "default": {"k": 5}}, "b": {"$ref": "#/$defs/G"}, "c": {}},
    }
    assert summary({"a": {"k": 1}, "b": {"k": 2}}, schema) == "a.k 1 · b.k 2"
    assert summary({"a": {"k": 5}, "b": {"k": 1}}, schema) == ""
    fields = {f"field_{i}": {"default": 0} for i in range(50)}
    long = summary(dict.fromkeys(fields, 1), {"properties": fields})
    assert len(long) <= LONGEST + 2
    assert long.endswith(" …")
    assert len(summary({"c": "x" * 1000}, schema)) < 50
