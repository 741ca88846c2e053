"""Content identity: canonical JSON, digests, and the digest of the code that some modules run."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import rfc8785

PACKAGE = Path(__file__).parent
DATA = (".yaml", ".json", ".cpp", ".hpp", ".md", ".safetensors")
NOT_DATA = {"README.md"}
"""Files among the data that only people read."""
NOT_FIGURES = {"present", "estimate", "statistics"}
"""What a kind declares that decides no figure, and in its file the functions of these names."""
PRESENTATION = (
    "husai_core.panels",
    "husai_core.render",
    "husai_core.kinds.kind",
    "husai_core.kinds.common.network_panels",
    "husai_core.kinds.common.panels",
    "husai_core.kinds.common.rows_work",
    "husai_core.kinds.common.statistics",
    "husai_core.kinds.common.stress_panels",
    "husai_core.kinds.common.variants",
    "husai_core.kinds.common.work",
    "husai_core.kinds.plan_estimate",
)
"""Modules that decide no figure, and packages of such modules."""
REGISTRY = ("husai_core", "husai_core.kinds")
"""Packages that only find what lies in them, so that importing a module of theirs says nothing of its figures."""
KERNELS_USED: set[str] = set()
"""Names of the numerical kernels that this process has used, for the manifest."""
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


def code_digest(modules: Sequence[str], libraries: Sequence[str] = ()) -> str:
    """Digest of the code that decides what some modules compute.

    These are the syntax trees of the modules and of every `husai_core` module that they import (lazily and
    transitively), the data files beside them, and the versions of the numerical libraries and of `libraries`. Names
    that only type checkers import, docstrings, comments, help texts and what only shows results (see `NOT_FIGURES`)
    are left out, so that rewording them recomputes nothing.
    """
    files = {path.relative_to(PACKAGE).as_posix(): _file_digest(path) for path in sources(modules)}
    return digest({"files": files, "versions": library_versions(tuple(libraries))})


def sources(modules: Sequence[str]) -> set[Path]:
    """The files of some modules, of every `husai_core` module that they import, and the data files beside them.

    Importing a module runs the `__init__.py` of the packages that it lies in, so these count as imported.
    """
    pending, seen, paths = list(modules), set[str](), set[Path]()
    while pending:
        module = pending.pop()
        path = _source(module)
        if module in seen or path is None or module == "husai_core" or only_shows(module):
            continue
        seen.add(module)
        paths |= {path, *_data_below(path.parent)}
        pending += [*_imports(path), *_packages(module)]
    return paths


def only_shows(module: str) -> bool:
    """Whether a module decides no figure."""
    return any(module == name or module.startswith(f"{name}.") for name in PRESENTATION)


def _packages(module: str) -> list[str]:
    """The packages that a module lies in, but for those that only find their modules."""
    names = module.split(".")
    above = [".".join(names[:depth]) for depth in range(1, len(names))]
    return [package for package in above if package not in REGISTRY]


@cache
def installed_versions() -> dict[str, str]:
    """Installed versions of the numerical libraries; a library that is absent is left out."""
    versions = {}
    for name in NUMERICAL:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def library_versions(libraries: tuple[str, ...] = ()) -> dict[str, str]:
    """Versions of the numerical libraries and of `libraries`, without a build's name, which the device class tells.

    A library that is not installed counts with its version in the lock, so that a service without numerical libraries
    names a computation as its workers do; one that is not there either is left out.
    """
    wanted = {_canonical_name(name) for name in (*NUMERICAL, *libraries)}
    versions = {name: version for name, version in _locked().items() if name in wanted}
    for name in wanted:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {name: version.partition("+")[0] for name, version in versions.items()}


@cache
def _locked() -> dict[str, str]:
    """Name to version of each line of the checkout's `requirements.lock`; empty where there is none."""
    lock = PACKAGE.parent / "requirements.lock"
    lines = lock.read_text().splitlines() if lock.is_file() else []
    pins = (line.split("==", 1) for line in lines if "==" in line)
    return {_canonical_name(name): version for name, version in pins}


def _canonical_name(name: str) -> str:
    """A distribution's name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _file_digest(path: Path) -> str:
    """Digest of a file's bytes; of Python, of the syntax tree that decides figures."""
    data = path.read_bytes()
    return digest(_shape(_deciding(ast.parse(data)))) if path.suffix == ".py" else sha256(data)


@cache
def _data_below(folder: Path) -> frozenset[Path]:
    return frozenset(data for data in folder.glob("*/*") if data.suffix in DATA and data.name not in NOT_DATA)


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """`husai_core` modules named by any import statement of a file that can run, at any depth."""
    modules: list[str] = []
    for node in ast.walk(_deciding(ast.parse(path.read_bytes()))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in modules if name == "husai_core" or name.startswith("husai_core."))


def _deciding(tree: ast.Module) -> ast.Module:
    """A module without what cannot change a figure: what only shows results, and what nothing else there uses."""
    tree = _WithoutHelp().visit(tree)
    dropped = _only_shown(tree)
    while dropped:
        kept = [node for node in tree.body if not _defines(node) or _defines(node) - dropped]
        gone = [node for node in tree.body if _defines(node) & dropped]
        used = {name for node in kept for name in _names(node)}
        defined = {name for node in tree.body for name in _defines(node)}
        unused = ({name for node in gone for name in _names(node)} & defined) - used - dropped
        if not unused:
            tree.body = [_without(node, dropped) for node in kept]
            break
        dropped |= unused
    return tree


def _only_shown(tree: ast.Module) -> set[str]:
    """The functions of a kind's file that its declaration alone uses, to show results or to estimate work."""
    if not any(_declares_kind(node) for node in tree.body):
        return set()
    shown = NOT_FIGURES & {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    while used := shown & {name for node in tree.body if not _defines(node) & shown for name in _names(node)}:
        shown -= used
    return shown


def _declares_kind(node: ast.stmt) -> bool:
    """Whether a statement is `KIND = Kind(...)`."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    called = value.func if isinstance(value, ast.Call) else None
    return "KIND" in _defines(node) and isinstance(called, ast.Name) and called.id == "Kind"


def _defines(node: ast.AST) -> set[str]:
    """The names that a statement of a module gives to a function, a constant or what it imports."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {_imported(alias) for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _imported(alias: ast.alias) -> str:
    """The name that an import gives to what it imports."""
    return (alias.asname or alias.name).partition(".")[0]


def _without(node: ast.stmt, dropped: set[str]) -> ast.stmt:
    """An import without the names that were dropped; any other statement as it is."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        node.names = [alias for alias in node.names if _imported(alias) not in dropped]
    return node


def _names(node: ast.AST) -> set[str]:
    """The names that a node reads."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}


class _WithoutHelp(ast.NodeTransformer):
    """Removes docstrings, help texts, imports for type checkers, and what a kind declares only to show its results."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not checking:
            return self.generic_visit(node)
        return self.visit(ast.Module(node.orelse, [])).body  # type: ignore[no-any-return]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        dropped = {"Field": {"description"}, "Port": {"help"}, "Kind": NOT_FIGURES}.get(called, set())
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in dropped]
        if called == "Port":
            node.args = node.args[:1]
        return self.generic_visit(node)


def _shape(node: Any) -> Any:
    """A syntax tree as JSON, alike in every version of Python: without positions, empty lists and absent parts."""
    if isinstance(node, ast.AST):
        fields = {name: _shape(value) for name, value in ast.iter_fields(node) if value not in (None, [])}
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_shape(item) for item in node]
    return repr(node)
