"""The registry of job kinds: adding a module below this package registers it."""

import importlib
import pkgutil
from functools import cache

from husai_core.kinds.base import QUEUES, Kind


@cache
def names() -> tuple[str, ...]:
    """The names of all kinds, sorted, found without importing them."""
    found = []
    for family in QUEUES:
        try:
            package = importlib.import_module(f"{__name__}.{family}")
        except ModuleNotFoundError:
            continue
        found += [f"{family}.{m.name}" for m in pkgutil.iter_modules(package.__path__)]
    return tuple(sorted(found))


@cache
def get(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        KeyError: no kind has this name.
    """
    if name not in names():
        raise KeyError(name)
    return Kind(name, importlib.import_module(f"{__name__}.{name}"))


def all_kinds() -> list[Kind]:
    """Every kind, sorted by name."""
    return [get(name) for name in names()]
