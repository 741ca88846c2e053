"""A job as the command that would ask for it, and a spec's schema as rows of a table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from husai.models import Job, Kind
from husai_core.render.text_layout import cells

Schema = Mapping[str, Any]


def command(job: Job, kind: Kind | None) -> str:
    """The `husai submit` line that asks for the same computation; fields at their default are left out."""
    words = ["husai", "submit", job.kind]
    for path, value in changed(job.spec, kind):
        words += ["--set", f"{path}={written(value)}"]
    for port, digests in job.inputs.items():
        words += [word for digest in digests for word in ("--input", f"{port}={_source(digest)}")]
    return shlex.join(words)


def continued(command: str, width: int) -> list[str]:
    """A command in lines of at most `width` columns, which a shell takes for one; no word is split."""
    lines, line = [], ""
    for word in map(shlex.quote, shlex.split(command)):
        if line and cells(line) + cells(word) + 3 > width:
            lines.append(f"{line} \\")
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def changed(spec: Mapping[str, Any], kind: Kind | None) -> list[tuple[str, Any]]:
    """The fields of a spec, by dotted path, that are not at their default; all of them where the kind is unknown.

    A lab's policy in full is left out: the service fills it in by its name.
    """
    usual = dict(flat(defaults(kind.spec_schema))) if kind else {}
    fields = kind.spec_schema.get("properties", {}) if kind else {}
    fields_of_user = {name: value for name, value in spec.items() if fields.get(name, {}).get("stamp") != "policy"}
    return [(path, value) for path, value in flat(fields_of_user) if path not in usual or usual[path] != value]


def written(value: Any) -> str:
    """A value as YAML reads it back."""
    return str(value) if _plain(value) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> bool:
    """Whether a value reads back as itself when written bare, as identifiers and paths do."""
    return isinstance(value, str) and value[:1].isalpha() and value.lower() not in {"null", "true", "false"} and (
        all(c.isalnum() or c in "._-/" for c in value)
    )  # fmt: skip


def _source(source: Any) -> str:
    if isinstance(source, str):
        return source
    index = "" if source.get("index") is None else f":{source['index']}"
    return f"job:{source['job']}:{source['output']}{index}"


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested objects by dotted path; lists and empty objects are leaves."""
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def defaults(schema: Schema, root: Schema | None = None) -> dict[str, Any]:
    """The default of every field of an object schema, also inside nested objects."""
    root = schema if root is None else root
    values: dict[str, Any] = {}
    for name, field in schema.get("properties", {}).items():
        nested = defaults(_resolve(field, root), root)
        if isinstance(field.get("default"), Mapping):
            nested |= field["default"]
        if nested:
            values[name] = nested
        elif "default" in field:
            values[name] = field["default"]
    return values


def fields(schema: Schema) -> Iterator[tuple[str, str, str, str, str]]:
    """Path, type, default, range and help of every field of a spec's schema, nested ones included."""
    yield from _fields(schema, schema, "")


def _fields(schema: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    required = set(schema.get("required", []))
    for name, field in schema.get("properties", {}).items():
        full = {**_resolve(field, root), **field}
        if full.get("properties"):
            yield from _fields(full, root, f"{prefix}{name}.")
            continue
        default = "required" if name in required else json.dumps(field.get("default"), ensure_ascii=False)
        yield f"{prefix}{name}", _type(full, root), default, _range(full), str(field.get("description", ""))


def _resolve(field: Schema, root: Schema) -> Schema:
    """The schema that a field refers to, else the field itself."""
    schemas = [field, *field.get("allOf", [])]
    reference = next((schema["$ref"] for schema in schemas if "$ref" in schema), None)
    return root.get("$defs", {}).get(reference.rsplit("/", 1)[-1], {}) if reference else field


def _type(field: Schema, root: Schema) -> str:
    if "enum" in field:
        return " | ".join(map(str, field["enum"]))
    if "const" in field:
        return str(field["const"])
    if "anyOf" in field:
        return " | ".join(_type(_resolve(choice, root), root) for choice in field["anyOf"])
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type(_resolve(field['items'], root), root)}"
    return str(field.get("type", field.get("title", "any")))


def _range(field: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    schemas = [field, *field.get("anyOf", [])]
    limits = [f"{sign} {each[name]:g}" for each in schemas for name, sign in signs.items() if name in each]
    return ", ".join(limits).replace("-", "−")
