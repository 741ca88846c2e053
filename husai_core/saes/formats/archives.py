"""Uploaded files in groups that belong together, zip archives unpacked within bounds."""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from husai_core.kinds.base import KindError

MOST_BYTES, MOST_RATIO = 8 * 2**30, 20
"""Largest unpacked size of a zip file, and how many times its own size that may be."""
MOST_NAME = 255


def groups(directories: list[Path], scratch: Path) -> list[dict[str, Path]]:
    """Files that lie together in one directory, by name, for each thing in the uploaded directories.

    Single files of separate uploads are put together, and archives are unpacked into the empty directory `scratch`.

    Raises:
        KindError: an archive is damaged, unpacks to too much or names files outside itself, or two files collide.
    """
    return [
        _together(group, scratch / f"group{number}") if len({path.parent for path in group.values()}) > 1 else group
        for number, group in enumerate(_groups(directories, scratch))
    ]


def _groups(directories: list[Path], scratch: Path) -> list[dict[str, Path]]:
    """Files that belong together, by name; single files of separate uploads are put together."""
    found: list[dict[str, Path]] = []
    loose: dict[str, Path] = {}
    for number, directory in enumerate(directories):
        files = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
        for name in [name for name in files if name.endswith(".zip")]:
            found += _unzip(files.pop(name), scratch / f"zip{number}-{len(found)}")
        if len(files) > 1:
            found.append(files)
        elif files.keys() & loose.keys():
            raise KindError(
                f"two uploads hold a file named {next(iter(files))}; upload each checkpoint as one zip file"
            )
        else:
            loose |= files
    return [*found, loose] if loose else found


def _unzip(path: Path, target: Path) -> list[dict[str, Path]]:
    """The archive's files, grouped by folder, unpacked into folders of our choice."""
    folders: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    unpacked: list[dict[str, Path]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            bounded(path, archive)
            for member in archive.infolist():
                if not member.is_dir():
                    folders[_safe(path, member).rpartition("/")[0]].append(member)
            for number, (_, members) in enumerate(sorted(folders.items())):
                (target / str(number)).mkdir(parents=True)
                unpacked.append({})
                for member in members:
                    name = member.filename.rpartition("/")[2]
                    unpacked[-1][name] = target / str(number) / name
                    with archive.open(member) as source, unpacked[-1][name].open("wb") as copy:
                        shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise KindError(f"{path.name} is not a readable zip file: {error}") from error
    return unpacked


def bounded(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive that says it unpacks to too much; `zipfile` reads no more than that of an entry."""
    size = sum(member.file_size for member in archive.infolist())
    if size > min(MOST_BYTES, MOST_RATIO * path.stat().st_size):
        raise KindError(
            f"{path.name} unpacks to {size} bytes; allowed are {MOST_BYTES >> 30} GiB and {MOST_RATIO} times its size"
        )


def _safe(path: Path, member: zipfile.ZipInfo) -> str:
    """The name of an entry that is one file below the archive's root, stored or deflated."""
    parts = member.filename.split("/")
    if parts[0] == "" or ".." in parts or parts[-1] == "." or len(parts[-1].encode()) > MOST_NAME:
        raise KindError(f"{path.name} is damaged: an entry is named {member.filename[:80]!r}")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise KindError(f"{path.name}: {member.filename[:80]!r} is neither stored nor deflated")
    return member.filename


def _together(group: Mapping[str, Path], target: Path) -> dict[str, Path]:
    """Links to the files, in one directory."""
    target.mkdir()
    for name, path in group.items():
        (target / name).symlink_to(path.resolve())
    return {name: target / name for name in group}
