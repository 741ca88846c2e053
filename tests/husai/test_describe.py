import shlex
from typing import Any

from husai import describe
from husai.models import Job, Kind
from husai.spec_args import assign, bindings

SCHEMA: dict[str, Any] = {
    "$defs": {"Recipe": {"type": "object", "required": ["d"], "properties": {
        "k": {"type": "integer", "default": 8, "minimum": 1, "description": "active latents"}, "d": {"type": "integer"},
    }}},
    "type": "object",
    "properties": {
        "recipe": {"$ref": "#/$defs/Recipe"},
        "seeds": {"type": "array", "items": {"type": "integer"}, "default": [0, 1]},
        "limit": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}], "default": None},
        "mode": {"enum": ["fast", "slow"], "default": "fast"},
    },
}  # fmt: skip
KIND = Kind.read({"name": "train.sae", "spec_schema": SCHEMA})


def job(spec: dict[str, Any], inputs: dict[str, Any]) -> Job:
    return Job.read({"id": "1", "kind": "train.sae", "state": "queued", "version": 1, "spec": spec, "inputs": inputs})


def test_the_command_of_a_job_asks_for_the_same_job() -> None:
    spec = {"recipe": {"k": 8, "d": 64}, "seeds": [0, 1, 2], "limit": None, "mode": "it's; slow", "name": "true"}
    inputs = {"activations": ["ab" * 32], "saes": [{"job": "0d0a7405", "output": "saes", "index": 0}]}
    words = shlex.split(describe.command(job(spec, inputs), KIND))
    settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    bound = [words[i + 1] for i, word in enumerate(words) if word == "--input"]
    assert words[:3] == ["husai", "submit", "train.sae"]
    assert assign(describe.defaults(SCHEMA), settings) == spec
    assert bindings(bound) == inputs
    assert not any(setting.startswith(("recipe.k=", "limit=")) for setting in settings)


def test_a_policy_that_the_service_fills_in_is_not_written_out() -> None:
    schema = {"properties": {"policy": {"default": "strict"}, "policy_document": {"default": None, "stamp": "policy"}}}
    kind = Kind.read({"name": "release.gate", "spec_schema": schema})
    spec = {"policy": "ours", "policy_document": {"name": "ours", "rules": []}}
    assert describe.command(job(spec, {}), kind).endswith("--set policy=ours")


def test_fields_show_type_default_range_and_help() -> None:
    rows = {row[0]: row[1:] for row in describe.fields(SCHEMA)}
    assert rows["recipe.k"] == ("integer", "8", "≥ 1", "active latents")
    assert rows["recipe.d"][1] == "required"
    assert rows["seeds"][0] == "list of integer"
    assert rows["limit"][0] == "number | null"
    assert rows["limit"][2] == "> 0"
    assert rows["mode"][0] == "fast | slow"
