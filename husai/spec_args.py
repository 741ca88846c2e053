"""From command-line words to JSON: spec files, `--set` and `--input`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from husai.errors import Usage


class _Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2: no dates, no `yes` or `no`, and `1e-3` is a number."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
):
    _first_characters = [character.replace("\0", "") for character in _first]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first_characters)


def parse(text: str, source: str) -> Any:
    """The JSON value of a YAML or JSON text; `source` names it in an error.

    Raises:
        Usage: it is neither, or has values that JSON lacks.
    """
    try:
        return json.loads(json.dumps(yaml.load(text, _Loader), allow_nan=False))
    except (LookupError, AttributeError):  # what PyYAML does with `!!int ""`, `!!bool x` and `!!timestamp x`
        raise Usage(f"{source}: a value does not fit its tag") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Usage(f"{source}: this is not YAML: {error.problem or error.context}{place}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Usage(f"{source}: {' '.join(str(error).split())}") from None


def spec_file(path: Path, what: str = "a spec") -> dict[str, Any]:
    """The object in a YAML or JSON file; `-` is standard input. `what` it holds is named in an error.

    Raises:
        Usage: it cannot be read, or is no object.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    value = parse(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise Usage(f"{path}: {what} is written as lines of `field: value`, and this is something else")
    return value


def assign(spec: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `--set a.b[0]=value` to a spec, in order, and return it. List indices count from 0; the next one appends.

    Raises:
        Usage: a setting has no `=`, or its path does not fit the spec.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
        if not equals or not all(keys):
            raise Usage(f"--set {setting}: expected NAME=VALUE, for example recipe.k=16")
        _put(spec, keys, parse(text, f"--set {path}"), setting)
    return spec


def _put(node: Any, keys: list[str], value: Any, setting: str) -> None:
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        slot = _slot(node, key, setting)
        if following is None:
            new = value
        else:
            present = (node if isinstance(node, dict) else dict(enumerate(node))).get(slot)
            new = present if present is not None else ([] if following == "0" else {})
        if isinstance(node, list) and slot == len(node):
            node.append(new)
        else:
            node[slot] = new
        node = node[slot]


def _slot(node: Any, key: str, setting: str) -> str | int:
    """The key or index in a container that a path element stands for."""
    if isinstance(node, dict):
        return key
    if isinstance(node, list):
        if key.isdecimal() and int(key) <= len(node):
            return int(key)
        raise Usage(f"--set {setting}: {key!r} is not an index of this list of {len(node)}")
    raise Usage(f"--set {setting}: {key!r} cannot be set inside a value that is neither an object nor a list")


def bindings(words: Iterable[str]) -> dict[str, list[Any]]:
    """`--input port=SHA` and `--input port=job:ID:OUTPUT[:INDEX]` as the inputs of a submission.

    Raises:
        Usage: a word has another form.
    """
    inputs: dict[str, list[Any]] = {}
    for word in words:
        port, equals, source = word.partition("=")
        if not equals or not port:
            raise Usage(f"--input {word}: expected PORT=SHA256 or PORT=job:ID:OUTPUT[:INDEX]")
        inputs.setdefault(port, []).append(_source(source, word))
    return inputs


def _source(source: str, word: str) -> Any:
    if re.fullmatch(r"[0-9a-f]{8,64}", source):
        return source
    if re.fullmatch(r"[0-9a-f]{1,7}", source):
        raise Usage(f"--input {word}: give at least the first 8 digits of a SHA-256")
    match = re.fullmatch(r"job:([^:]+):([^:]+)(?::(\d+))?", source)
    if not match:
        raise Usage(f"--input {word}: {source!r} is neither a SHA-256 nor job:ID:OUTPUT[:INDEX]")
    job, output, index = match.groups()
    if not re.fullmatch(r"[0-9a-f]{8,24}", job):
        raise Usage(f"--input {word}: {job!r} is no job's id: give at least its first 8 digits")
    return {"job": job, "output": output} | ({"index": int(index)} if index is not None else {})
