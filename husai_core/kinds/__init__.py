"""The registry of job kinds: adding a file below this package registers the kind that it declares."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from husai_core import identity
from husai_core.kinds.kind import QUEUES, Kind

ALIASES = {"train.imported": "data.import"}
"""Earlier names of kinds, under which stored jobs are still found."""


@cache
def names() -> tuple[str, ...]:
    """The names of all kinds, sorted, without importing them.

    A file's name may end in an underscore, which keeps it apart from a keyword.
    """
    kinds = []
    for family in QUEUES:
        try:
            package = importlib.import_module(f"{__name__}.{family}")
        except ModuleNotFoundError:
            continue
        kinds += [f"{family}.{module.name.removesuffix('_')}" for module in pkgutil.iter_modules(package.__path__)]
    return tuple(sorted(kinds))


@cache
def get(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        KeyError: no kind has this name.
    """
    name = ALIASES.get(name, name)
    if name not in names():
        raise KeyError(name)
    family, _, last = name.partition(".")
    package = importlib.import_module(f"{__name__}.{family}")
    files = {module.name.removesuffix("_"): module.name for module in pkgutil.iter_modules(package.__path__)}
    module = importlib.import_module(f"{__name__}.{family}.{files[last]}")
    declared: Kind = module.KIND
    return replace(declared, name=name, help=(module.__doc__ or "").strip(), module=module.__name__)


def all_kinds() -> list[Kind]:
    """Every kind, sorted by name."""
    return [get(name) for name in names()]


def statistics() -> dict[str, Mapping[str, tuple[float, float]]]:
    """The figures that release policies can read, by kind: the least and the largest value that each can take."""
    return {kind.name: kind.statistics for kind in all_kinds() if kind.statistics}


def descendants(name: str) -> tuple[str, ...]:
    """A kind and every kind that its jobs may ask for, children of children included, sorted."""
    pending, names_seen = [name], set[str]()
    while pending:
        current = pending.pop()
        if current not in names_seen:
            names_seen.add(current)
            pending += get(current).children
    return tuple(sorted(names_seen))


@cache
def code_digest(name: str) -> str:
    """Digest of the code that decides what a kind computes, itself and through its children."""
    kinds = [get(kind) for kind in descendants(name)]
    libraries = sorted({library for kind in kinds for library in kind.libraries})
    return identity.code_digest([kind.module for kind in kinds], libraries)


def job_digest(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Sequence[str]], device: str) -> str:
    """The identity of a computation: spec (with its dtype), inputs, device class and code.

    Two jobs with one digest compute the same thing, so the second may take the first one's result.
    """
    return identity.digest(
        {
            "kind": kind,
            "spec": dict(spec),
            "inputs": {name: list(digests) for name, digests in inputs.items() if digests},
            "device": device,
            "code": code_digest(kind),
        }
    )
