"""The names under which files are sent."""

import unicodedata
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from api.fields import FilePath
from husai.collect import collect
from husai.errors import Usage


def names(folder: Path, *files: str) -> dict[str, str]:
    """What each of some new files is called when its folder is sent."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    paths, _ = collect([folder])
    for name in paths:
        assert TypeAdapter(FilePath).validate_python(name) == name
    return {path.relative_to(folder).as_posix(): name for name, path in paths.items()}


def test_letters_of_every_script_stay(tmp_path: Path) -> None:
    files = ("红楼.txt", "三国.txt", "ä.txt", "ö.txt", "हिन्दी.txt", "层一/cfg.json", "层二/cfg.json", "Ⅷ.md")
    assert names(tmp_path, *files) == {file: file for file in files}


def test_names_that_are_replaced_do_not_become_one(tmp_path: Path) -> None:
    sent = names(tmp_path, "a b.txt", "a_b.txt", "a?b.txt", "🙂.txt", "🙃.txt", "d e/x.txt", "d_e/x.txt")
    assert len(set(sent.values())) == len(sent)
    assert sorted(sent.values())[:3] == ["a_b-2.txt", "a_b-3.txt", "a_b.txt"]
    assert sent["🙂.txt"] == "file_.txt"


def test_equal_looking_names_stay_apart(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "é.txt"), unicodedata.normalize("NFD", "é.txt")
    assert set(names(tmp_path, composed, apart).values()) == {composed, "é-2.txt"}


def test_long_names_keep_their_suffix(tmp_path: Path) -> None:
    sent = names(tmp_path, "字" * 83 + ".txt", "a" * 200 + ".txt")
    assert {len(name.encode()) for name in sent.values()} == {253, 128}
    assert all(name.endswith(".txt") for name in sent.values())


def test_what_systems_leave_is_not_sent_and_is_named(tmp_path: Path) -> None:
    names(tmp_path, "a.txt")
    for name in (".DS_Store", "Thumbs.db", "__MACOSX/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    paths, left_out = collect([tmp_path])
    assert list(paths) == ["a.txt"]
    assert left_out == [".DS_Store", "Thumbs.db", "__MACOSX"]


def test_nothing_to_send_is_told(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="there are no files in"):
        collect([tmp_path])
    with pytest.raises(Usage, match="there is no file"):
        collect([tmp_path / "absent"])


def test_folders_of_one_name_stay_apart(tmp_path: Path) -> None:
    for run in ("a", "b"):
        names(tmp_path / run / "seed0", "cfg.json", "sae_weights.safetensors")
    paths, _ = collect([tmp_path / "a" / "seed0", tmp_path / "b" / "seed0"])
    assert list(paths) == [
        f"{folder}/{file}" for folder in ("seed0", "seed0-2") for file in ("cfg.json", "sae_weights.safetensors")
    ]
    assert paths["seed0-2/cfg.json"] == tmp_path / "b" / "seed0" / "cfg.json"
