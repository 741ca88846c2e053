from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from husai_core import identity

KIND_FILE = '''"""Help."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from husai_core.unused import X

from husai_core import deep as shown, tools

LIMIT = 3
"""Of something."""
TITLE = "title"


class Result:
    value: float = Field(0.5, ge=0, description="a figure")


def run():
    """Work."""
    from husai_core.tools import helper
    return LIMIT + tools.X  # here


def present(result):
    return [title(result)]


def title(result):
    return shown.X + TITLE


KIND = Kind(run=run, present=present)
'''
ONE = "husai_core.kinds.train.one"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON))
def test_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert identity.digest(value) == identity.digest(backwards)


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    value = {"numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 1e-27, 1.0], "é": "\u20ac$\u000f", "a": None}
    expected = '{"a":null,"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,1],"é":"€$\\u000f"}'
    assert identity.canonical(value) == expected.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_what_json_cannot_carry_exactly_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r".+"):
        identity.canonical(value)


def forget() -> None:
    """Files may have changed."""
    read = (identity._source, identity._file_digest, identity._data_below, identity._imports)
    for cached in read:
        cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two kinds: `one` imports `helper` lazily, which imports `deep`; `two` imports nothing."""
    sources = {
        "kinds/train/one.py": KIND_FILE,
        "kinds/train/two.py": "import json\n",
        "tools/__init__.py": "",
        "tools/helper.py": "import husai_core.deep as deep\n",
        "deep.py": "X = 1\n",
        "unused.py": "X = 1\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(identity, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    forget()


@pytest.mark.parametrize(
    ("changed", "matters"),
    [
        ("kinds/train/one.py", True),
        ("tools/helper.py", True),
        ("tools/__init__.py", True),
        ("deep.py", True),
        ("unused.py", False),
        ("kinds/train/two.py", False),
    ],
)
def test_code_digest_follows_imports_lazy_and_transitive(package: Path, changed: str, matters: bool) -> None:
    before = identity.code_digest([ONE])
    with (package / changed).open("a") as file:
        file.write("\nY = 2\n")
    forget()
    assert (identity.code_digest([ONE]) != before) is matters


@pytest.mark.parametrize(
    ("old", "new", "matters"),
    [
        ('"""Help."""', '"""Better help."""', False),
        ('"""Work."""', "", False),
        ('"""Of something."""', '"""Of something else."""', False),
        ("# here", "# there", False),
        ("a figure", "one figure", False),
        ("return shown.X + TITLE", "return shown.X + TITLE * 2", False),
        ('TITLE = "title"', 'TITLE = "another title"', False),
        ("import deep as shown, tools", "import unused as shown, tools", False),
        ("import deep as shown, tools", "import deep as shown, unused as tools", True),
        ("return [title(result)]", "return [title(result), 1]", False),
        ("husai_core.unused", "husai_core.deep", False),
        ("LIMIT = 3", "LIMIT = 4", True),
        ("from husai_core.unused import X\n", "from husai_core.unused import X\nelse:\n    LOW = 1\n", True),
        ("ge=0", "ge=1", True),
        ("0.5", "0.25", True),
        ("return LIMIT", "return LIMIT + 1", True),
    ],
)
def test_only_what_decides_figures_changes_the_code_digest(package: Path, old: str, new: str, matters: bool) -> None:
    before = identity.code_digest([ONE])
    assert old in KIND_FILE
    (package / "kinds/train/one.py").write_text(KIND_FILE.replace(old, new))
    forget()
    assert (identity.code_digest([ONE]) != before) is matters


@pytest.mark.parametrize(
    ("old", "new"),
    [("KIND = Kind(", "OTHER = Kind("), ("return LIMIT", "return len(present(1))"), ("return LIMIT", "return present")],
)
def test_what_shows_results_counts_where_more_than_a_kinds_declaration_uses_it(
    package: Path, old: str, new: str
) -> None:
    text, digests = KIND_FILE.replace(old, new), set[str]()
    for title in ("title", "another title"):
        (package / "kinds/train/one.py").write_text(text.replace('"title"', f'"{title}"'))
        forget()
        digests.add(identity.code_digest([ONE]))
    assert len(digests) == 2


def test_only_whole_names_of_modules_are_left_out() -> None:
    assert identity.only_shows("husai_core.render.svg")
    assert identity.only_shows("husai_core.kinds.common.work")
    assert not identity.only_shows("husai_core.kinds.common.workload")


def test_packages_of_a_module_count(package: Path) -> None:
    (package / "tools/deeper").mkdir()
    (package / "tools/deeper/__init__.py").write_text("from husai_core import unused\n")
    (package / "tools/deeper/last.py").write_text("X = 1\n")
    forget()
    paths = identity.sources(["husai_core.tools.deeper.last"])
    names = {path.relative_to(package).as_posix() for path in paths}
    assert names == {"tools/__init__.py", "tools/deeper/__init__.py", "tools/deeper/last.py", "unused.py"}


def test_files_that_are_read_without_being_asked_for_count() -> None:
    assets = identity.PACKAGE / "assets"
    paths = identity.sources(["husai_core.kinds.train.activations"])
    assert {assets / "classics-2m/model.safetensors", assets / "classics-2m/tokenizer.json"} <= paths
    assert {assets / "classics-2m/config.json", *(assets / "classics-held-out").glob("*.md")} <= paths
    assert not any(path.name == "README.md" for path in paths)
    assert not any(assets in path.parents for path in identity.sources(["husai_core.kinds.train.sae"]))


@pytest.mark.parametrize("path", sorted(identity.PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_use_of_a_module_is_one_that_a_digest_follows(path: Path) -> None:
    """Neither the bare package, from which anything can be reached, nor a module by way of its package."""
    tree, packages = ast.parse(path.read_bytes()), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.partition(".")[0] == "husai_core" and not a.asname]
            assert "husai_core" not in [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("husai_core"):
            modules = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            packages |= {name: module for name, module in modules.items() if identity._source(module)}
            assert node.module != "husai_core" or modules.keys() <= packages.keys()
    reached = {
        f"{packages[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages
    }
    assert not [module for module in reached if identity._source(module)]


def test_a_constant_in_a_loss_changes_the_code_digest_and_a_docstring_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "husai_core"
    shutil.copytree(identity.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    monkeypatch.setattr(identity, "PACKAGE", copy)
    module, source = ["husai_core.kinds.train.sae"], copy / "saes/trainer.py"
    forget()
    before = identity.code_digest(module)
    text = source.read_text()
    source.write_text(text.replace('"""', '"""Reworded. ', 1) + "\n# A comment.\n")
    forget()
    assert identity.code_digest(module) == before
    source.write_text(text + "\nAUXILIARY = 1 / 33\n")
    forget()
    assert identity.code_digest(module) != before
    forget()


def test_code_digest_follows_library_versions(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity.code_digest([ONE])
    monkeypatch.setattr(identity, "library_versions", lambda _: {"torch": "0.1"})
    forget()
    assert identity.code_digest([ONE]) != before


def test_code_digest_does_not_depend_on_where_the_package_lies(package: Path, tmp_path: Path) -> None:
    before = identity.code_digest([ONE])
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(package, elsewhere, ignore=shutil.ignore_patterns("elsewhere"))
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "PACKAGE", elsewhere)
        assert identity.code_digest([ONE]) == before


def test_no_other_module_uses_what_is_left_out_of_a_modules_digest() -> None:
    files = sorted(identity.PACKAGE.rglob("*.py"))
    deciding = {path: identity._deciding(ast.parse(path.read_bytes())) for path in files}
    shown = {path for path in files if identity.only_shows(_module(path))}
    imported = {
        (node.module, alias.name)
        for path in files
        if path not in shown
        for node in ast.walk(deciding[path])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for path in files:
        whole, kept = _definitions(ast.parse(path.read_bytes())), _definitions(deciding[path])
        assert not {(_module(path), name) for name in whole - kept} & imported, path


def _module(path: Path) -> str:
    parts = path.relative_to(identity.PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def _definitions(tree: ast.Module) -> set[str]:
    return {name for node in tree.body for name in identity._defines(node)}
