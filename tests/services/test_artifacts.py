import os
from pathlib import Path

import pytest

from husai_core.artifact_index import index_tree
from services.artifacts import Store, materialise, read_index, store_tree
from services.problems import Problem


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "a.json").write_text("{}")
    (tmp_path / "tree" / "deep" / "b.bin").write_bytes(bytes(range(256)))
    return tmp_path / "tree"


def test_a_tree_comes_back_as_it_went_in(store: Store, tree: Path, tmp_path: Path) -> None:
    stored = store_tree(store, index_tree("table", tree), tree)
    materialise(store, stored.sha256, tmp_path / "back")
    assert (tmp_path / "back/deep/b.bin").read_bytes() == bytes(range(256))
    assert stored.size == 258
    assert set(read_index(store, stored.sha256)["files"]) == {"a.json", "deep/b.bin"}


def test_equal_trees_have_one_digest_and_another_type_has_another(store: Store, tree: Path) -> None:
    first = store_tree(store, index_tree("table", tree), tree)
    assert store_tree(store, index_tree("table", tree), tree) == first
    assert store_tree(store, index_tree("figure", tree), tree).sha256 != first.sha256


def test_nothing_half_written_stays(store: Store) -> None:
    store.put_bytes(b"x" * 1000)
    assert not list(Path(store.root, "tmp").iterdir())


def test_a_write_that_fails_leaves_nothing_behind(store: Store) -> None:
    with Path("/proc/self/mem").open("rb") as unreadable, pytest.raises(OSError, match="Input/output error"):
        store.put(unreadable, "a" * 64)
    assert list(Path(store.root).rglob("tmp/*")) == []
    assert not store.exists("a" * 64)


def test_what_a_dead_writer_left_is_swept_away_in_time(store: Store) -> None:
    store.put_bytes(b"x")
    left, fresh = Path(store.root, "tmp", "left"), Path(store.root, "tmp", "fresh")
    left.touch()
    fresh.touch()
    os.utime(left, (0, 0))
    store.sweep()
    assert [path.name for path in fresh.parent.iterdir()] == ["fresh"]


def test_an_unknown_digest_is_a_problem(store: Store) -> None:
    with pytest.raises(Problem) as refused:
        store.read("0" * 64)
    assert (refused.value.status, refused.value.slug) == (404, "unknown-artifact")
    plain = store.put_bytes(b"[1, 2]")
    with pytest.raises(Problem):
        read_index(store, plain)
