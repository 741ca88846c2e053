"""What is left out of folders and archives, and what archives may hold."""

import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from husai_core.errors import UserError
from husai_core.importers import archives, find
from husai_core.importers.archives import is_litter
from husai_core.saes.sae import SAE
from tests.husai_core.importers.test_importers import CFG, saelens

LITTER = {
    "mac": {"__MACOSX/my sae/._cfg.json": b"\0", "my sae/.DS_Store": b"\0"},
    "windows": {"my sae/Thumbs.db": b"\0", "my sae/desktop.ini": b"[x]"},
    "hub": {"my sae/.gitattributes": b"*", "my sae/.cache/x": b"", "my sae/.cfg.json.swp": b""},
}
BESIDE = {"my sae/LICENSE": b"MIT", "my sae/README.md": b"#", "my sae/loss.png": b"\x89PNG", "my sae/log.csv": b"1"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> dict[str, bytes]:
    return {f"my sae/{name.replace('__', '.')}": data for name, data in saelens(tmp_path, CFG).items()}


def zipped(path: Path, files: dict[str, bytes], separator: str = "/") -> Path:
    """A directory with a zip file of these files."""
    path.mkdir()
    with zipfile.ZipFile(path / "sae.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    if separator != "/":
        raw = (path / "sae.zip").read_bytes()
        (path / "sae.zip").write_bytes(raw.replace(b"my sae/", b"my sae" + separator.encode()))
    return path


def unpacked(path: Path, files: dict[str, bytes]) -> Path:
    """A directory with these files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read(directory: Path, scratch: Path) -> tuple[SAE, list[str]]:
    scratch.mkdir()
    contents = find([directory], scratch)
    (thing,) = contents.things
    assert isinstance(thing.value, SAE)
    return thing.value, contents.left_out


@pytest.mark.parametrize("tool", [*LITTER, "beside"])
def test_folders_and_archives_leave_out_the_same_and_name_it(
    tmp_path: Path, checkpoint: dict[str, bytes], tool: str
) -> None:
    more = LITTER.get(tool, BESIDE)
    plain, _ = read(zipped(tmp_path / "plain", checkpoint), tmp_path / "s0")
    from_zip, of_zip = read(zipped(tmp_path / "zip", checkpoint | more), tmp_path / "s1")
    from_folder, of_folder = read(unpacked(tmp_path / "folder", checkpoint | more), tmp_path / "s2")
    assert sorted(name.removeprefix("sae.zip/") for name in of_zip) == sorted(of_folder) == sorted(more)
    for sae in (from_zip, from_folder):
        assert torch.equal(sae.W_enc, plain.W_enc)
        assert sae.provenance == plain.provenance


def test_backslashes_separate_folders_as_slashes_do(tmp_path: Path, checkpoint: dict[str, bytes]) -> None:
    (tmp_path / "scratch").mkdir()
    things = find([zipped(tmp_path / "in", checkpoint, "\\")], tmp_path / "scratch").things
    assert [thing.source for thing in things] == ["sae.zip/my sae/sae_weights.safetensors"]


def test_a_backslash_leads_out_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with pytest.raises(UserError, match="is damaged: an entry is named"):
        find([zipped(tmp_path / "in", {"..\\..\\a.pt": b"x"})], tmp_path / "scratch")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, checkpoint: dict[str, bytes]) -> None:
    (tmp_path / "scratch").mkdir()
    directory = zipped(tmp_path / "in", checkpoint | {"my sae\\cfg.json": b"{}"})
    with pytest.raises(UserError, match=r"holds 'my sae/cfg\.json' twice"):
        find([directory], tmp_path / "scratch")


def test_an_upload_of_litter_alone_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    with pytest.raises(UserError, match=r"no file of a known layout, but LICENSE, a/\.DS_Store \(known: SAELens"):
        find([unpacked(tmp_path / "in", {"a/.DS_Store": b"", "LICENSE": b""})], tmp_path / "scratch")


@pytest.mark.parametrize(
    ("name", "litter"), [("a/b.txt", False), (".a", True), ("a/.b/c", True), ("THUMBS.DB", True), ("a.b", False)]
)
def test_litter_is_known_by_its_name(name: str, litter: bool) -> None:
    assert is_litter(name) is litter


def many(path: Path, entries: int) -> Path:
    path.mkdir()
    with zipfile.ZipFile(path / "many.zip", "w") as archive:
        for number in range(entries):
            archive.writestr(f"{number}/notes.txt", b"")
    return path


def test_an_archive_of_too_many_entries_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    directory, started = many(tmp_path / "in", 30_000), time.process_time()
    with pytest.raises(UserError, match="holds more than the 5000 files and folders"):
        find([directory], tmp_path / "scratch")
    assert time.process_time() - started < 0.1  # zipfile alone would take longer to list it


def test_an_archive_that_denies_how_many_entries_it_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    directory = many(tmp_path / "in", 30_000)
    raw = bytearray((directory / "many.zip").read_bytes())
    raw[-14:-10] = struct.pack("<HH", 3, 3)
    (directory / "many.zip").write_bytes(raw)
    with pytest.raises(UserError, match="more than 5000 files and folders together"):
        find([directory], tmp_path / "scratch")


def test_the_entries_of_all_archives_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_ENTRIES", 5)
    for number in range(2):
        (tmp_path / f"s{number}").mkdir()
    directories = [many(tmp_path / "a", 3), many(tmp_path / "b", 3)]
    with pytest.raises(UserError, match=r"holds more than the 5 files|more than 5 files and folders together"):
        find(directories, tmp_path / "s0")
    with pytest.raises(UserError, match="no file of a known layout"):
        find(directories[:1], tmp_path / "s1")


def test_a_checkpoint_of_many_entries_is_refused_too(tmp_path: Path) -> None:
    content: Any = {"sae_state_dict": {str(i): torch.zeros(1) for i in range(5100)}}
    (tmp_path / "in").mkdir()
    (tmp_path / "scratch").mkdir()
    torch.save(content, tmp_path / "in" / "a.pt")
    with pytest.raises(UserError, match="holds more than the 5000"):
        find([tmp_path / "in"], tmp_path / "scratch")
