"""Between what stands in a form and a spec: only what was filled in goes into the spec."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from api.pages.schema_fields import TYPES, Field, as_text

Values = Mapping[str, str]
Errors = dict[str, str]
REFERENCE = re.compile(r"(?:job:)?([0-9a-f]{8,24})[:.]([\w.-]{1,64}?)(?:[\[:](\d{1,4})\]?)?")


def to_spec(fields: Sequence[Field], values: Values) -> tuple[dict[str, Any], Errors]:
    """The spec that the filled-in fields make, and messages by path about those that cannot be read."""
    spec: dict[str, Any] = {}
    errors: Errors = {}
    for field in fields:
        name = field.path.rpartition(".")[2]
        if field.widget == "group":
            inner, wrong = to_spec(field.fields, values)
            errors |= wrong
            if inner:
                spec[name] = inner
        elif field.widget == "union":
            if chosen := values.get(field.path, "").strip():
                group = next((group for group in field.fields if group.label == chosen), None)
                inner, wrong = to_spec(group.fields if group else (), values)
                errors |= wrong
                spec[name] = {field.tag: chosen, **inner}
        elif text := values.get(field.path, "").strip():
            try:
                spec[name] = _value(field, text)
            except ValueError as wrong_value:
                errors[field.path] = str(wrong_value)
    return spec, errors


def _value(field: Field, text: str) -> Any:
    """What a text means in a field.

    Raises:
        ValueError: it means nothing there; the message is for the reader.
    """
    if field.widget == "json":
        try:
            return json.loads(text)
        except ValueError as wrong:
            raise ValueError(f"not JSON: {wrong}") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if field.widget == "list":
        return [_scalar(field.type, item) for item in re.split(r"[,\s]+", text.strip("[]")) if item]
    return _scalar(field.type, text)


def _scalar(type: str, text: str) -> Any:
    try:
        if type == "integer":
            return int(text.replace("_", ""))
        if type == "number":
            return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {TYPES[type]}") from None
    if type == "boolean":
        if text not in ("yes", "no"):
            raise ValueError(f"{text!r} is not {TYPES[type]}")
        return text == "yes"
    if type not in ("string", "boolean"):
        return json.loads(text) if re.fullmatch(r"-?\d+(\.\d+)?|true|false", text) else text
    return text


def to_values(fields: Sequence[Field], spec: Mapping[str, Any]) -> dict[str, str]:
    """What stands in the fields of a form for a spec; nothing where a value is the default."""
    values: dict[str, str] = {}
    for field in fields:
        value = spec.get(field.path.rpartition(".")[2])
        if value is None or value == field.default:
            continue
        if field.widget == "group" and isinstance(value, Mapping):
            values |= to_values(field.fields, value)
        elif field.widget == "union" and isinstance(value, Mapping):
            values[field.path] = str(value.get(field.tag, ""))
            for group in field.fields:
                if group.label == values[field.path]:
                    values |= to_values(group.fields, value)
        elif text := as_text(field, value):
            values[field.path] = text
    return values


def to_inputs(ports: Sequence[str], texts: Mapping[str, Sequence[str]]) -> dict[str, list[Any]]:
    """By port: digests, and `job:JOB:OUTPUT` or `job:JOB:OUTPUT:INDEX` as references; blank ports are left out.

    A plan writes them as `JOB.output[0]`, which may be copied here, too.
    """
    inputs: dict[str, list[Any]] = {}
    for port in ports:
        words = [word for text in texts.get(port, ()) for word in re.split(r"[,\s]+", text) if word]
        if words:
            inputs[port] = list(map(_reference, dict.fromkeys(words)))
    return inputs


def _reference(word: str) -> Any:
    match = REFERENCE.fullmatch(word)
    if match is None:
        return word
    job, output, index = match.groups()
    return {"job": job, "output": output, "index": None if index is None else int(index)}


def from_reference(reference: Any) -> str:
    """A digest or a reference as it would be typed."""
    if not isinstance(reference, Mapping):
        return str(reference)
    index = "" if reference.get("index") is None else f":{reference['index']}"
    return f"job:{reference.get('job')}:{reference.get('output')}{index}"
