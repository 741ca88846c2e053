"""Private folders are closed to others, whoever made them and when."""

from pathlib import Path

import pytest

from husai_core.folders import make_private


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o777, 0o700])
def test_a_folder_of_ours_is_closed(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    make_private(folder)
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_folder_for_everybody_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(PermissionError, match="for everybody"):
        make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize(("name", "refused"), [("notes.txt", True), ("husai.db", False), ("lost+found", False)])
def test_only_an_empty_folder_or_a_home_is_closed(tmp_path: Path, name: str, refused: bool) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    (folder / name).touch()
    if refused:
        with pytest.raises(PermissionError, match="holds other things"):
            make_private(folder)
    else:
        make_private(folder)
    assert folder.stat().st_mode & 0o777 == (0o755 if refused else 0o700)
