from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from api.pages import forms, schema_fields
from husai_core import kinds


class Text(BaseModel):
    kind: Literal["text"] = "text"
    language: str = "en"


class Modular(BaseModel):
    kind: Literal["modular"] = "modular"
    p: int = Field(113, ge=2, description="a prime")


class Recipe(BaseModel):
    lr: float = Field(3e-3, gt=0, description="learning rate")
    k: int | None = None
    prefixes: list[int] = []
    free: dict[str, int] = {}


class Spec(BaseModel):
    steps: int = Field(ge=1, le=10, description="how many")
    act: Literal["relu", "gelu"] = "relu"
    shuffle: bool = True
    recipe: Recipe = Recipe(k=8)
    source: Annotated[Text | Modular, Field(discriminator="kind")] = Modular()
    world: Recipe | None = None


FIELDS = schema_fields.of_spec(Spec.model_json_schema())
BY_NAME = {field.path: field for field in FIELDS}


def test_each_field_has_its_widget_help_limits_and_default():
    steps, act, shuffle = (BY_NAME[f"spec.{name}"] for name in ("steps", "act", "shuffle"))
    assert (steps.widget, steps.type, steps.required) == ("text", "integer", True)
    assert steps.help == "how many; at least 1, at most 10"
    assert (act.widget, act.options, act.default_text) == ("choice", ["relu", "gelu"], "relu")
    assert (shuffle.options, shuffle.default_text) == (["yes", "no"], "yes")


def test_groups_and_alternatives_have_fields_of_their_own():
    recipe = {field.path: field.widget for field in BY_NAME["spec.recipe"].fields}
    assert recipe == {
        "spec.recipe.lr": "text",
        "spec.recipe.k": "text",
        "spec.recipe.prefixes": "list",
        "spec.recipe.free": "json",
    }
    source = BY_NAME["spec.source"]
    assert (source.widget, source.tag, source.options) == ("union", "kind", ["modular", "text"])
    assert [field.path for field in source.fields[0].fields] == ["spec.source|modular.p"]


def test_only_what_is_filled_in_goes_into_the_spec():
    values = {
        "spec.steps": "7",
        "spec.act": "",
        "spec.shuffle": "no",
        "spec.recipe.lr": "1e-2",
        "spec.recipe.prefixes": "16, 32 64",
        "spec.recipe.free": '{"a": 1}',
        "spec.source": "modular",
        "spec.source|modular.p": "7",
    }
    spec, errors = forms.to_spec(FIELDS, values)
    assert errors == {}
    assert spec == {
        "steps": 7,
        "shuffle": False,
        "recipe": {"lr": 0.01, "prefixes": [16, 32, 64], "free": {"a": 1}},
        "source": {"kind": "modular", "p": 7},
    }
    Spec.model_validate(spec)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("spec.steps", "seven", "'seven' is not a whole number"),
        ("spec.recipe.lr", "fast", "'fast' is not a number"),
        ("spec.recipe.free", "{", "not JSON"),
        ("spec.shuffle", "maybe", "'maybe' is not yes or no"),
    ],
)
def test_what_cannot_be_read_is_said_beside_its_field(path, text, message):
    spec, errors = forms.to_spec(FIELDS, {path: text})
    assert message in errors[path]
    assert spec == {}


@pytest.mark.parametrize("name", kinds.names())
def test_every_kind_has_a_form_that_gives_its_presets_back(name):
    kind = kinds.get(name)
    fields = schema_fields.of_spec(kind.spec.model_json_schema())
    for preset_name, preset in kind.presets.items():
        named = {"preset": preset_name} if "preset" in kind.spec.model_fields else preset
        whole = kind.spec.model_validate(named)
        spec, errors = forms.to_spec(fields, forms.to_values(fields, whole.model_dump(mode="json")))
        assert errors == {}
        assert kind.spec.model_validate(spec) == whole


def test_inputs_are_digests_or_what_another_job_makes():
    job, digest = "a" * 24, "b" * 64
    texts = {"saes": [f"{digest}\n{job}:saes[2]", digest], "transformer": [""], "rows": [f"{job[:8]}.activations"]}
    inputs = forms.to_inputs(["saes", "transformer", "rows"], texts)
    assert forms.to_inputs(["saes"], {"saes": [f"job:{job}:saes:2"]})["saes"] == inputs["saes"][1:]
    assert inputs == {
        "saes": [digest, {"job": job, "output": "saes", "index": 2}],
        "rows": [{"job": job[:8], "output": "activations", "index": None}],
    }
    assert [forms.from_reference(reference) for reference in inputs["saes"]] == [digest, f"job:{job}:saes:2"]


def test_what_the_service_fills_in_has_no_field():
    paths = {field.path for field in schema_fields.of_spec(kinds.get("release.gate").spec.model_json_schema())}
    assert "spec.policy" in paths
    assert "spec.policy_document" not in paths
