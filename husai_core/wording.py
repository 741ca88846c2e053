"""What is wrong with a document, in plain words, and what its writer may have meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from husai_core.errors import UserError

Model = TypeVar("Model", bound=BaseModel)

WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda ctx: "is missing",
    "extra_forbidden": lambda ctx: "unknown field",
    "greater_than": lambda ctx: f"must be more than {ctx['gt']:g}",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']:g}",
    "less_than": lambda ctx: f"must be less than {ctx['lt']:g}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']:g}",
    "multiple_of": lambda ctx: f"must be a multiple of {ctx['multiple_of']:g}",
    "literal_error": lambda ctx: f"must be {ctx['expected']}",
    "enum": lambda ctx: f"must be {ctx['expected']}",
    "finite_number": lambda ctx: "must be a finite number",
    "too_short": lambda ctx: f"must have at least {_count(ctx['min_length'], 'element')}, not {ctx['actual_length']}",
    "too_long": lambda ctx: f"may have at most {_count(ctx['max_length'], 'element')}",
    "string_too_short": lambda ctx: f"must have at least {_count(ctx['min_length'], 'character')}",
    "string_too_long": lambda ctx: f"may have at most {_count(ctx['max_length'], 'character')}",
    "string_pattern_mismatch": lambda ctx: f"does not have the form {ctx['pattern']}",
    "union_tag_invalid": lambda ctx: f"unknown {_bare(ctx)} {ctx['tag']!r}; there are {ctx['expected_tags']}",
    "union_tag_not_found": lambda ctx: f"{_bare(ctx)} is missing",
    "json_invalid": lambda ctx: f"is not JSON: {ctx['error']}",
}
"""By type of error, what to say about a field; the rest is in `TYPES`, or is a message of our own."""
TYPES = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "list": "a list",
    "tuple": "a list", "dict": "an object", "model": "an object", "model_attributes": "an object", "none": "null",
}  # fmt: skip
"""What the first word of types such as `int_parsing`, `int_from_float` and `list_type` asks for."""

SHORT = 3
"""Letters up to which a name counts as short."""


def plain(error: Mapping[str, Any]) -> str:
    """What a pydantic error says about its field, in plain words.

    Args:
        error: one of `ValidationError.errors()`.
    """
    kind = str(error["type"])
    if kind in WORDS:
        return WORDS[kind](error.get("ctx") or {})
    for suffix in ("_type", "_parsing", "_from_float", "_parsing_size"):
        if kind.endswith(suffix) and (wanted := TYPES.get(kind.removesuffix(suffix))):
            return f"must be {wanted}"
    text = str(error["msg"]).removeprefix("Value error, ").splitlines()
    return text[0] if text else "is not acceptable"


def _bare(ctx: Mapping[str, Any]) -> str:
    """The name of the field that tells the alternatives of a union apart."""
    return str(ctx["discriminator"]).strip("'")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def closest(name: str, known: Iterable[str]) -> list[str]:
    """Those of some names that a misspelt one may stand for, the nearest first."""
    by_lower = {other.lower(): other for other in known}
    cutoff = 0.7 if len(name) > SHORT else 0.6  # between names as short as k and kk, one letter is a third
    return [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=2, cutoff=cutoff)]


def hint(suggestions: Sequence[str]) -> str:
    """`; did you mean x?`, or nothing without suggestions."""
    return f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""


def explain(error: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str, list[str]]:
    """Where an error of a model is, what is wrong there, and what may have been meant.

    Returns:
        the field's path without the tags of unions, the message, and the suggestions.
    """
    path, schema = _walk(model.model_json_schema(), error["loc"])
    suggestions: list[str] = []
    if error["type"] == "extra_forbidden":
        suggestions = closest(str(error["loc"][-1]), schema.get("properties", {}))
    elif error["type"] == "literal_error":
        suggestions = closest(str(error.get("input")), _quoted(error["ctx"]["expected"]))
    elif error["type"] == "union_tag_invalid":
        suggestions = closest(str(error["ctx"]["tag"]), _quoted(error["ctx"]["expected_tags"]))
    return ".".join(path), plain(error) + hint(suggestions), suggestions


def validated(model: type[Model], document: Mapping[str, Any], name: str = "") -> Model:
    """A document as its model.

    Args:
        name: what stands before the path of a wrong field.

    Raises:
        UserError: which fields are wrong, and what they may have meant.
    """
    try:
        return model.model_validate(dict(document))
    except ValidationError as refused:
        explained = [explain(error, model) for error in refused.errors()]
    raise UserError(
        "; ".join(": ".join(filter(None, (".".join(filter(None, (name, path))), text))) for path, text, _ in explained)
    )


def _quoted(text: str) -> list[str]:
    """The names in `'a', 'b' or 'c'`."""
    return text.split("'")[1::2]


def _walk(root: Mapping[str, Any], location: Sequence[str | int]) -> tuple[list[str], Mapping[str, Any]]:
    """The path of a location without union tags, and the schema of the object that holds its last part."""
    path: list[str] = []
    schema = holder = resolved(root, root)
    for step in location:
        tagged = next((branch for branch in branches(root, schema) if _is_tag(branch, step)), None)
        if tagged is not None and str(step) not in schema.get("properties", {}):
            schema = holder = tagged
            continue
        path.append(str(step))
        objects = [branch for branch in branches(root, schema) if "properties" in branch] or [{"properties": {}}]
        holder = next((branch for branch in objects if str(step) in branch["properties"]), objects[0])
        inner = holder.get("properties", {}).get(str(step))
        if inner is None and isinstance(step, int):
            inner = next((branch["items"] for branch in branches(root, schema) if "items" in branch), {})
        schema = resolved(root, inner or {})
    return path, holder


def resolved(root: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON Schema with its reference into the root's definitions followed."""
    reference = schema.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else schema


def branches(root: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A schema's alternatives, or itself."""
    inner = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    return [branch for option in inner for branch in branches(root, resolved(root, option))] or [schema]


def _is_tag(branch: Mapping[str, Any], step: str | int) -> bool:
    """True when a step names an alternative by the value of its discriminator, or by the model's name."""
    constants = (field.get("const") for field in branch.get("properties", {}).values())
    return step in constants or step == branch.get("title")
