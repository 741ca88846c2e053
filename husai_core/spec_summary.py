"""A spec in a few words: what it changes of its kind's defaults, for lists in which jobs of one kind stand together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from husai_core.wording import branches, resolved

Schema = Mapping[str, Any]
LONGEST, LONGEST_VALUE = 100, 40
"""Characters of a summary and of a value in it."""


def summary(spec: Mapping[str, Any], schema: Schema) -> str:
    """`d_sae 32 · k 3 · seeds 0, 1, 2`: the fields that differ from their defaults, in the schema's order.

    Digests and instants that the service fills in are left out. A field's name stands with its group's only where two
    groups have it.

    Args:
        schema: the JSON Schema of the kind's spec.
    """
    changed = list(_changes(spec, schema, schema, ()))
    names = Counter(path[-1] for path, _ in changed)
    text = ""
    for path, value in changed:
        name = path[-1] if names[path[-1]] == 1 else ".".join(path)
        words = f"{name} {_cut(_words(value))}"
        if text and len(text) + len(words) + 3 > LONGEST:
            return f"{text} …"
        text = f"{text} · {words}" if text else words
    return text


def _changes(
    spec: Mapping[str, Any], schema: Schema, root: Schema, path: tuple[str, ...], usual: Mapping[str, Any] | None = None
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of each leaf that differs from its default, which is that in `usual`, else the field's own."""
    for name, field in schema.get("properties", {}).items():
        value, default = spec.get(name), (usual or {}).get(name, field.get("default"))
        if name not in spec or value in (default, None, {}) or "stamp" in field or _is_digest(value):
            continue
        holder = _holder(value, field, root) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping) and holder is not None:
            nested = default if isinstance(default, Mapping) else None
            yield from _changes(value, holder, root, (*path, name), nested)
        else:
            yield (*path, name), value


def _holder(value: Mapping[str, Any], field: Schema, root: Schema) -> Schema | None:
    """The schema of an object that a field holds; None where its fields are free."""
    objects = [branch for branch in branches(root, resolved(root, field)) if "properties" in branch]
    return next((branch for branch in objects if _fits(value, branch)), None)


def _fits(value: Mapping[str, Any], branch: Schema) -> bool:
    """Whether an object is of this alternative, by the constants that tell alternatives apart."""
    constants = {name: field["const"] for name, field in branch["properties"].items() if "const" in field}
    return all(value.get(name) == constant for name, constant in constants.items())


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"
