from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from husai_core import identity

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


def test_job_digest_depends_on_each_part(package: Path) -> None:
    spec, inputs = {"k": 16}, {"saes": ["a", "b"]}
    found = {
        identity.job_digest("train.one", spec, inputs, "cpu"),
        identity.job_digest("train.two", spec, inputs, "cpu"),
        identity.job_digest("train.one", {"k": 17}, inputs, "cpu"),
        identity.job_digest("train.one", spec, {"saes": ["b", "a"]}, "cpu"),
        identity.job_digest("train.one", spec, inputs, "cuda"),
    }
    assert len(found) == 5


def test_an_unbound_port_is_no_part_of_the_identity(package: Path) -> None:
    assert identity.job_digest("train.one", {}, {"saes": []}, "cpu") == identity.job_digest("train.one", {}, {}, "cpu")


def test_a_studys_code_covers_its_children_and_its_policies() -> None:
    found = {path.relative_to(identity.PACKAGE).as_posix() for path in identity.sources("study.pipeline")}
    assert {"saes/trainer.py", "kinds/stress/ood.py", "release/judge.py", "release/policies/strict.yaml"} <= found


def forget() -> None:
    """Files may have changed."""
    read = (identity._source, identity._file_digest, identity._data_below, identity._imports)
    for known in (identity.code_digest, *read):
        known.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two kinds: `one` imports `helper` lazily, which imports `deep`; `two` imports nothing."""
    sources = {
        "kinds/train/one.py": "def run():\n    from husai_core.tools import helper\n",
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
    before = identity.code_digest("train.one")
    with (package / changed).open("a") as file:
        file.write("\nY = 2\n")
    forget()
    assert (identity.code_digest("train.one") != before) is matters


def test_code_digest_follows_library_versions(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity.code_digest("train.one")
    monkeypatch.setattr(identity, "library_versions", lambda: {"torch": "0.1"})
    forget()
    assert identity.code_digest("train.one") != before


def test_code_digest_does_not_depend_on_where_the_package_lies(package: Path, tmp_path: Path) -> None:
    before = identity.code_digest("train.one")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(package, elsewhere, ignore=shutil.ignore_patterns("elsewhere"))
    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "PACKAGE", elsewhere)
        assert identity.code_digest("train.one") == before
