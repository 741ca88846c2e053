"""Errors in plain words, wherever in a document they are."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from husai_core import kinds, wording


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TopK(Model):
    architecture: Literal["topk"]
    k: int = Field(16, ge=1, lt=10_000)


class Relu(Model):
    architecture: Literal["relu"]
    penalty: float = Field(1.0, gt=0, allow_inf_nan=False)


class Spec(Model):
    recipe: Annotated[TopK | Relu, Field(discriminator="architecture")] = TopK(architecture="topk")
    seeds: list[int] = Field([1], min_length=1, max_length=3)
    mode: Literal["fast", "slow"] = "fast"
    name: str = "a"
    nested: list[TopK] = []
    maybe: TopK | None = None
    exact: bool = True


@pytest.mark.parametrize(
    ("document", "field", "message", "suggestions"),
    [
        ({"seed": [1]}, "seed", "unknown field; did you mean seeds?", ["seeds"]),
        ({"zzz": 1}, "zzz", "unknown field", []),
        ({"recipe": {"architecture": "topk", "kk": 1}}, "recipe.kk",
         "unknown field; did you mean k?", ["k"]),
        ({"nested": [{"architecture": "topk", "kk": 1}]}, "nested.0.kk", "unknown field; did you mean k?", ["k"]),
        ({"recipe": {"architecture": "relu", "penalti": 1}}, "recipe.penalti",
         "unknown field; did you mean penalty?", ["penalty"]),
        ({"recipe": {"architecture": "rely"}}, "recipe",
         "unknown architecture 'rely'; there are 'topk', 'relu'; did you mean relu?", ["relu"]),
        ({"recipe": {"architecture": "topk", "k": 0}}, "recipe.k", "must be at least 1", []),
        ({"recipe": {"architecture": "topk", "k": 10_000}}, "recipe.k", "must be less than 10000", []),
        ({"recipe": {"architecture": "relu", "penalty": 0}}, "recipe.penalty", "must be more than 0", []),
        ({"recipe": {"architecture": "topk", "k": "x"}}, "recipe.k", "must be a whole number", []),
        ({"recipe": {"architecture": "topk", "k": 1.5}}, "recipe.k", "must be a whole number", []),
        ({"nested": [{"architecture": "topk", "kay": 1}]}, "nested.0.kay", "unknown field", []),
        ({"nested": [{}]}, "nested.0.architecture", "is missing", []),
        ({"maybe": {"architecture": "topk", "k": -1}}, "maybe.k", "must be at least 1", []),
        ({"seeds": []}, "seeds", "must have at least 1 element, not 0", []),
        ({"seeds": [1, 2, 3, 4]}, "seeds", "may have at most 3 elements", []),
        ({"seeds": 1}, "seeds", "must be a list", []),
        ({"mode": "fsat"}, "mode", "must be 'fast' or 'slow'; did you mean fast?", ["fast"]),
        ({"name": 1}, "name", "must be a text", []),
        ({"exact": "perhaps"}, "exact", "must be true or false", []),
    ],
)  # fmt: skip
def test_each_error_is_explained(document: dict[str, Any], field: str, message: str, suggestions: list[str]) -> None:
    with pytest.raises(ValidationError) as refused:
        Spec.model_validate(document)
    (error,) = refused.value.errors()
    assert wording.explain(error, Spec) == (field, message, suggestions)


def test_no_kind_leaks_the_words_of_the_library() -> None:
    for kind in kinds.all_kinds():
        for name in kind.spec.model_fields:
            for value in (object(), [object()], "\0", -1.5, {"": 1}):
                try:
                    kind.spec.model_validate({name: value})
                except ValidationError as refused:
                    for error in refused.errors():
                        _, message, _ = wording.explain(error, kind.spec)
                        assert "Input should" not in message, (kind.name, name, message)
