"""Uploaded files by the folder that they lie in, zip archives unpacked within bounds.

Folders and archives follow one rule about what is left out: what systems and tools put beside files on their own.
"""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections import ChainMap, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from husai_core.errors import UserError
from husai_core.saes.checkpoint import HALF

MOST_BYTES, MOST_RATIO = 8 * 2**30, 20
"""Largest unpacked size of a zip file, and how many times its own size that may be."""
MOST_ENTRIES = 5000
"""Most files and folders of all archives of an upload together."""
MOST_NAME = 255
DIRECTORY_BYTES = MOST_ENTRIES * (MOST_NAME + 200)
"""Largest list of contents of an archive, which is looked at before it is read."""
END_OF_ARCHIVE, END_BYTES = b"PK\x05\x06", 22
LITTER = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "icon\r"}
"""Names, in lower case, of what systems leave in folders; so do names that begin with a dot."""


@dataclass(frozen=True)
class Folder:
    """Files that lie together, by name; the folder's own name in the upload, or in an archive there.

    `above` are the files of the folders that hold this one; of equal names, that of the nearest. `half` are those of
    the folder in this one that keeps an SAE's half.
    """

    files: dict[str, Path]
    name: str = ""
    above: Mapping[str, Path] = field(default_factory=dict)
    half: Mapping[str, Path] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """A file's name with the folder before it."""
        return f"{self.name}/{text}" if self.name else text


@dataclass
class Unpacked:
    """The folders of an upload so far, the names that were left out, and what archives may still hold."""

    scratch: Path
    folders: list[Folder] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    bytes_left: int = field(default_factory=lambda: MOST_BYTES)
    entries_left: int = field(default_factory=lambda: MOST_ENTRIES)


def unpack(directories: list[Path], scratch: Path) -> Unpacked:
    """What lies together in one folder, for each folder of the uploaded directories.

    Single files of separate uploads are put together, and archives are unpacked into the empty directory `scratch`.

    Raises:
        UserError: an archive is damaged, holds or unpacks to too much or names files outside itself, or two files
            collide.
    """
    upload = Unpacked(scratch)
    loose: dict[str, Path] = {}
    for directory in directories:
        folders = _by_folder(directory, upload.left_out)
        for name, files in folders.items():
            for archive in [file for file in files if file.endswith(".zip")]:
                _unzip(files.pop(archive), Folder({}, name).named(archive), upload)
        if len(folders) != 1 or len(folders.get("", ())) != 1:
            upload.folders += _connected(folders)
        elif folders[""].keys() & loose.keys():
            name = next(iter(folders[""]))
            raise UserError(f"two uploads hold a file named {name}; upload each checkpoint as one zip file")
        else:
            loose |= folders[""]
    if loose:
        upload.folders.append(Folder(_together(loose, scratch / "loose")))
    return upload


def is_litter(name: str) -> bool:
    """Whether a path names what a system or a tool put there on its own."""
    return any(step.startswith(".") or step.lower() in LITTER for step in name.split("/"))


def counted(name: str) -> list[tuple[bool, int, str]]:
    """What to sort a path by, so that its numbered parts come by their numbers: `saes/2` before `saes/10`."""
    return [(step.isdecimal(), int(step) if step.isdecimal() else 0, step) for step in name.split("/")]


def bounded(path: Path, archive: zipfile.ZipFile, most: int = MOST_BYTES) -> None:
    """Refuse an archive that says it unpacks to too much; `zipfile` reads no more than that of an entry."""
    size = sum(member.file_size for member in archive.infolist())
    if size > min(most, MOST_RATIO * path.stat().st_size):
        raise UserError(
            f"{path.name} unpacks to {size} bytes; allowed are {MOST_BYTES >> 30} GiB in all and {MOST_RATIO} times "
            "its size"
        )


def check_entries(path: Path, most: int = MOST_ENTRIES) -> None:
    """Refuse an archive whose list of contents is too long, before it is read.

    Raises:
        UserError: it names, or has room for, more than `most` entries.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_BYTES - 2**16))
        tail = file.read()
    at = tail.rfind(END_OF_ARCHIVE)
    if at < 0 or len(tail) < at + END_BYTES:
        return  # zipfile says why it is none
    entries, size = struct.unpack_from("<HI", tail, at + 10)
    if entries > most or size > DIRECTORY_BYTES:
        raise UserError(f"{path.name} holds more than the {MOST_ENTRIES} files and folders that archives may hold")


def _by_folder(directory: Path, left_out: list[str]) -> dict[str, dict[str, Path]]:
    """The files below a directory by folder and name; the directory itself is the folder without a name."""
    folders: dict[str, dict[str, Path]] = defaultdict(dict)
    names = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    for name in sorted(names, key=counted):
        if is_litter(name):
            left_out.append(name)
        else:
            folders[name.rpartition("/")[0]][names[name].name] = names[name]
    return folders


def _connected(folders: Mapping[str, dict[str, Path]], source: str = "") -> list[Folder]:
    """The folders that hold files, each with those above it and of its half; `source` is the archive's name."""
    return [
        Folder(
            files,
            Folder({}, source).named(name).rstrip("/"),
            ChainMap(*(folders.get(_key(parent), {}) for parent in PurePosixPath(name).parents)),
            folders.get(_key(PurePosixPath(name, HALF)), {}),
        )
        for name, files in folders.items()
        if files
    ]


def _key(folder: PurePosixPath) -> str:
    """The name of a folder; that of the root is empty."""
    return "" if folder == PurePosixPath(".") else folder.as_posix()


def _unzip(path: Path, source: str, upload: Unpacked) -> None:
    """Add the archive's folders to the upload, unpacked into folders of our choice; `source` names the archive."""
    target = upload.scratch / f"zip{len(upload.folders)}-{len(list(upload.scratch.iterdir()))}"
    try:
        check_entries(path, upload.entries_left)
        with zipfile.ZipFile(path) as archive:
            bounded(path, archive, upload.bytes_left)
            members = _members(path, archive, Folder({}, source), upload)
            folders = _extracted(archive, members, target)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise UserError(f"{path.name} is not a readable zip file: {error}") from error
    upload.bytes_left -= sum(file.stat().st_size for files in folders.values() for file in files.values())
    upload.folders += _connected(folders, source)


def _members(path: Path, archive: zipfile.ZipFile, source: Folder, upload: Unpacked) -> dict[str, zipfile.ZipInfo]:
    """The archive's files to unpack, by safe names with `/` between folders."""
    members: dict[str, zipfile.ZipInfo] = {}
    upload.entries_left -= len(archive.infolist())
    if upload.entries_left < 0:
        raise UserError(f"the archives hold more than {MOST_ENTRIES} files and folders together")
    for member in archive.infolist():
        name = _safe(path, member)
        if name.endswith("/"):
            continue
        if is_litter(name):
            upload.left_out.append(source.named(name))
        elif name in members:
            raise UserError(f"{path.name} holds {name[:80]!r} twice")
        else:
            members[name] = member
    return members


def _extracted(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], target: Path
) -> dict[str, dict[str, Path]]:
    """The unpacked files by folder and name; each folder becomes a numbered one below `target`."""
    folders: dict[str, dict[str, Path]] = {}
    places: dict[str, Path] = {}
    for name in sorted(members, key=counted):
        folder, _, last = name.rpartition("/")
        if folder not in folders:
            folders[folder], places[folder] = {}, target / str(len(folders))
            places[folder].mkdir(parents=True)
        folders[folder][last] = places[folder] / last
        with archive.open(members[name]) as content, folders[folder][last].open("wb") as copy:
            shutil.copyfileobj(content, copy)
    return folders


def _safe(path: Path, member: zipfile.ZipInfo) -> str:
    """The name of an entry below the archive's root, stored or deflated; some tools separate folders by backslashes."""
    name = member.filename.replace("\\", "/")
    parts = name.split("/")
    if parts[0] == "" or ".." in parts or parts[-1] == "." or len(parts[-1].encode()) > MOST_NAME:
        raise UserError(f"{path.name} is damaged: an entry is named {member.filename[:80]!r}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path.name}: {member.filename[:80]!r} is neither stored nor deflated")
    return name


def _together(files: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Links to the files, in one directory."""
    target.mkdir()
    for name, path in files.items():
        (target / name).symlink_to(path.resolve())
    return {name: target / name for name in files}
