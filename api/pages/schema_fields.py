"""The fields of a form, made from the JSON Schema of a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Widget = Literal["text", "choice", "list", "json", "group", "union"]
Schema = Mapping[str, Any]
TYPES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "yes or no"}
MISSING = object()


@dataclass(frozen=True)
class Field:
    """One field, or a group of fields below one name.

    Args:
        path: dotted, as in the messages about a spec.
        type: JSON type of the value, or of each item of a `list`.
        options: of a `choice` or a `union`, as texts.
        default: what an empty field stands for; `MISSING` where something must be said.
        fields: those of a group, or of every alternative of a union, whose paths then begin with `path|tag`.
        tag: the name of the field that tells the alternatives of a union apart.
    """

    path: str
    label: str
    help: str
    widget: Widget
    type: str = "string"
    options: Sequence[str] = ()
    default: Any = MISSING
    optional: bool = False
    fields: Sequence[Field] = field(default_factory=list)
    tag: str = ""

    @property
    def required(self) -> bool:
        """True when the field may not be left empty."""
        return self.default is MISSING and self.widget not in ("group", "union")

    @property
    def default_text(self) -> str:
        """What an empty field stands for, as it would be typed."""
        return "" if self.default is MISSING else as_text(self, self.default)


def of_spec(schema: Schema) -> list[Field]:
    """The fields of a spec."""
    return _properties(schema, schema, "spec")


def _properties(schema: Schema, root: Schema, path: str) -> list[Field]:
    required = set(schema.get("required", ()))
    fields = []
    for name, inner in schema.get("properties", {}).items():
        filled_in = inner.get("stamp") == "policy"  # by the service, from the name of the policy
        if "const" not in _resolved(inner, root) and not filled_in:
            fields.append(_field(inner, root, f"{path}.{name}", name, name in required))
    return fields


def _resolved(schema: Schema, root: Schema) -> dict[str, Any]:
    """A schema with its reference followed; what stands beside the reference wins."""
    if "allOf" in schema and len(schema["allOf"]) == 1:
        schema = {**schema["allOf"][0], **{key: value for key, value in schema.items() if key != "allOf"}}
    if "$ref" not in schema:
        return dict(schema)
    target = root["$defs"][schema["$ref"].rpartition("/")[2]]
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**_resolved(target, root), **beside}


def _field(schema: Schema, root: Schema, path: str, name: str, required: bool) -> Field:
    whole = _resolved(schema, root)
    alternatives = [_resolved(inner, root) for inner in whole.get("anyOf", ())]
    present = [inner for inner in alternatives if inner.get("type") != "null"]
    if len(present) == 1:
        whole = {**present[0], **{key: value for key, value in whole.items() if key != "anyOf"}}
    default = MISSING if required else whole.get("default")
    base = Field(path, name, whole.get("description", ""), "text", default=default)
    base = replace(base, optional=len(present) < len(alternatives))
    return _widget(base, whole, root)


def _widget(base: Field, schema: Schema, root: Schema) -> Field:
    kind = str(schema.get("type", ""))
    if "enum" in schema:
        return replace(base, widget="choice", options=[_plain(option) for option in schema["enum"]], type=kind)
    if kind == "boolean":
        return replace(base, widget="choice", options=["yes", "no"], type=kind)
    if "discriminator" in schema:
        return _union(base, schema, root)
    if kind == "object" and "properties" in schema:
        return replace(base, widget="group", fields=_properties(schema, root, base.path))
    if kind in TYPES:
        return replace(base, type=kind, help=_with_limits(base.help, schema))
    items = _resolved(_items(schema), root)
    if kind == "array" and str(items.get("type")) in TYPES:
        return replace(base, widget="list", type=items["type"], help=_with_limits(base.help, items))
    return replace(base, widget="json")


def _items(schema: Schema) -> Schema:
    """What the items of an array are; of a tuple, what they all are."""
    each = schema.get("prefixItems") or [schema.get("items", {})]
    same = isinstance(each[0], Mapping) and all(item.get("type") == each[0].get("type") for item in each)
    return each[0] if same else {}


def _union(base: Field, schema: Schema, root: Schema) -> Field:
    """Alternatives that a field tells apart: each is a group of its own."""
    tag, groups = schema["discriminator"]["propertyName"], []
    for value, reference in schema["discriminator"]["mapping"].items():
        inner = _resolved({"$ref": reference}, root)
        path = f"{base.path}|{value}"
        group = Field(path, str(value), inner.get("description", ""), "group", fields=_properties(inner, root, path))
        groups.append(group)
    return replace(base, widget="union", tag=tag, options=[group.label for group in groups], fields=groups)


def _with_limits(help: str, schema: Schema) -> str:
    """The help with what the value must keep to."""
    limits = [
        f"{words} {_plain(schema[key])}"
        for key, words in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "above"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema and abs(schema[key]) < 2**53
    ]
    return "; ".join(filter(None, [help, ", ".join(limits)]))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)


def as_text(field: Field, value: Any) -> str:
    """A value as it would be typed into a field; empty for nothing."""
    if value is None:
        return ""
    if field.widget == "list" and isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else _plain(value)
