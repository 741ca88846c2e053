"""Content identity: canonical JSON, digests, and the digest of the code that a job kind runs.

Two jobs with one digest compute the same thing, so the second may take the first one's result.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import rfc8785

PACKAGE = Path(__file__).parent
DATA = (".yaml", ".json", ".cpp", ".hpp")
NUMERICAL = ("torch", "numpy", "scipy", "safetensors", "transformer-lens", "transformers", "tokenizers")


def canonical(value: Any) -> bytes:
    """The RFC 8785 (JCS) bytes of a JSON value."""
    return rfc8785.dumps(value)


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical bytes."""
    return sha256(canonical(value))


def job_digest(kind: str, spec: Mapping[str, Any], inputs: Mapping[str, Sequence[str]], device: str) -> str:
    """The identity of a computation: spec (with its dtype), inputs, device class and code."""
    return digest(
        {
            "kind": kind,
            "spec": dict(spec),
            "inputs": {name: list(digests) for name, digests in inputs.items() if digests},
            "device": device,
            "code": code_digest(kind),
        }
    )


@cache
def code_digest(kind: str) -> str:
    """Digest of the files that decide what a kind computes, and of the versions of the numerical libraries."""
    files = {path.relative_to(PACKAGE).as_posix(): _file_digest(path) for path in sources(kind)}
    return digest({"files": files, "versions": library_versions()})


def sources(kind: str) -> set[Path]:
    """The files that decide what a kind computes.

    These are its module, every `husai_core` module that it imports (lazily and transitively), the data files beside
    them, and the same of every kind that a study may submit (module constant `CHILDREN`).
    """
    pending, seen = [f"husai_core.kinds.{name}" for name in (kind, *_children(kind))], set[str]()
    paths = set[Path]()
    while pending:
        module = pending.pop()
        path = _source(module)
        if module in seen or path is None:
            continue
        seen.add(module)
        paths |= {path, *_data_below(path.parent)}
        pending += _imports(path)
    return paths


def _children(kind: str) -> tuple[str, ...]:
    from husai_core import kinds

    return getattr(kinds.get(kind).module, "CHILDREN", ()) if kind in kinds.names() else ()


@cache
def installed_versions() -> dict[str, str]:
    """Installed versions of the numerical libraries; a library that is absent is left out."""
    found = {}
    for name in NUMERICAL:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def library_versions() -> dict[str, str]:
    """Versions of the numerical libraries, without the name of a build, which the device class tells.

    A library that is not installed counts with its version in the lock, so that a service without numerical libraries
    names a computation as its workers do; one that is not there either is left out.
    """
    found = {name: version for name, version in _locked().items() if name in NUMERICAL} | installed_versions()
    return {name: version.partition("+")[0] for name, version in found.items()}


@cache
def _locked() -> dict[str, str]:
    """Name to version of each line of the checkout's `requirements.lock`; empty where there is none."""
    lock = PACKAGE.parent / "requirements.lock"
    lines = lock.read_text().splitlines() if lock.is_file() else []
    return dict(line.split("==", 1) for line in lines if "==" in line)


@cache
def _source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _file_digest(path: Path) -> str:
    return sha256(path.read_bytes())


@cache
def _data_below(folder: Path) -> frozenset[Path]:
    return frozenset(data for data in folder.glob("*/*") if data.suffix in DATA)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """`husai_core` modules named by any import statement of a file, at any depth."""
    found: list[str] = []
    for node in _statements(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in found if name == "husai_core" or name.startswith("husai_core."))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, and what else may hold statements; expressions are passed over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from _statements(child)
