"""Uploaded files in groups that belong together, zip archives unpacked within bounds."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from husai_core.errors import UserError

MOST_BYTES, MOST_RATIO = 8 * 2**30, 20
"""Largest unpacked size of a zip file, and how many times its own size that may be."""
MOST_NAME = 255


@dataclass(frozen=True)
class Group:
    """Files that lie together, by name, and the folder they came in: of the upload, or of an archive in it."""

    files: dict[str, Path]
    folder: str = ""

    def named(self, text: str) -> str:
        """A file's name with the folder before it."""
        return f"{self.folder}/{text}" if self.folder else text


def groups(directories: list[Path], scratch: Path) -> list[Group]:
    """What lies together in one folder, for each folder of the uploaded directories.

    Single files of separate uploads are put together, and archives are unpacked into the empty directory `scratch`.

    Raises:
        UserError: an archive is damaged, unpacks to too much or names files outside itself, or two files collide.
    """
    found: list[Group] = []
    loose: dict[str, Path] = {}
    left = MOST_BYTES
    for number, directory in enumerate(directories):
        folders = _folders(directory)
        for folder, files in folders.items():
            for name in [name for name in files if name.endswith(".zip")]:
                target = scratch / f"zip{number}-{len(found)}"
                made = _unzip(files.pop(name), Group({}, folder).named(name), target, left)
                left -= sum(path.stat().st_size for group in made for path in group.files.values())
                found += made
        alone = len(folders) == 1 and len(folders.get("", ())) == 1
        if not alone:
            found += [Group(files, folder) for folder, files in folders.items() if files]
        elif folders[""].keys() & loose.keys():
            name = next(iter(folders[""]))
            raise UserError(f"two uploads hold a file named {name}; upload each checkpoint as one zip file")
        else:
            loose |= folders[""]
    return [*found, Group(_together(loose, scratch / "loose"))] if loose else found


def counted(name: str) -> list[tuple[bool, int, str]]:
    """What to sort a path by, so that its numbered parts come by their numbers: `saes/2` before `saes/10`."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split("/")]


def _folders(directory: Path) -> dict[str, dict[str, Path]]:
    """The files below a directory by folder and name; the directory itself is the folder without a name."""
    folders: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(directory.rglob("*"), key=lambda path: counted(path.relative_to(directory).as_posix())):
        if path.is_file():
            folders[path.parent.relative_to(directory).as_posix().removeprefix(".")][path.name] = path
    return folders


def _unzip(path: Path, source: str, target: Path, most: int) -> list[Group]:
    """The archive's files, at most `most` bytes of them, grouped by folder and unpacked into folders of our choice.

    `source` names the archive.
    """
    folders: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    unpacked: list[Group] = []
    try:
        with zipfile.ZipFile(path) as archive:
            bounded(path, archive, most)
            for member in archive.infolist():
                if not member.is_dir():
                    folders[_safe(path, member).rpartition("/")[0]].append(member)
            for number, (folder, members) in enumerate(sorted(folders.items(), key=lambda folder: counted(folder[0]))):
                (target / str(number)).mkdir(parents=True)
                files = {}
                for member in members:
                    name = member.filename.rpartition("/")[2]
                    files[name] = target / str(number) / name
                    with archive.open(member) as content, files[name].open("wb") as copy:
                        shutil.copyfileobj(content, copy)
                unpacked.append(Group(files, Group({}, source).named(folder).rstrip("/")))
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise UserError(f"{path.name} is not a readable zip file: {error}") from error
    return unpacked


def bounded(path: Path, archive: zipfile.ZipFile, most: int = MOST_BYTES) -> None:
    """Refuse an archive that says it unpacks to too much; `zipfile` reads no more than that of an entry."""
    size = sum(member.file_size for member in archive.infolist())
    if size > min(most, MOST_RATIO * path.stat().st_size):
        raise UserError(
            f"{path.name} unpacks to {size} bytes; allowed are {MOST_BYTES >> 30} GiB in all and {MOST_RATIO} times "
            "its size"
        )


def _safe(path: Path, member: zipfile.ZipInfo) -> str:
    """The name of an entry that is one file below the archive's root, stored or deflated."""
    parts = member.filename.split("/")
    if parts[0] == "" or ".." in parts or parts[-1] == "." or len(parts[-1].encode()) > MOST_NAME:
        raise UserError(f"{path.name} is damaged: an entry is named {member.filename[:80]!r}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path.name}: {member.filename[:80]!r} is neither stored nor deflated")
    return member.filename


def _together(group: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Links to the files, in one directory."""
    target.mkdir()
    for name, path in group.items():
        (target / name).symlink_to(path.resolve())
    return {name: target / name for name in group}
