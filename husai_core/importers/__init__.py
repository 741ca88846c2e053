"""Reading what others trained: SAEs, transformers and cached activations in known file layouts, one module each.

Files are never unpickled: only tensors and plain values are read.
"""

from __future__ import annotations

from pathlib import Path

from husai_core.errors import UserError
from husai_core.importers import saelens
from husai_core.importers.archives import Folder, Unpacked, unpack
from husai_core.importers.folders import KNOWN, FolderReader
from husai_core.importers.imported import BareRows, Contents, Imported, LanguageFiles, ModularWeights
from husai_core.importers.values import plain
from husai_core.saes import checkpoint

__all__ = ["BareRows", "Contents", "Imported", "LanguageFiles", "ModularWeights", "find", "plain"]


def find(directories: list[Path], scratch: Path) -> Contents:
    """Everything in the uploaded directories; `scratch` is an empty directory to unpack into.

    Raises:
        UserError: a file with weights is none of the known layouts, or is damaged; or nothing can be read.
    """
    upload = unpack(directories, scratch)
    folders, states = _without_states(upload)
    readers = [FolderReader(folder) for folder in folders]
    things = [thing for reader in readers for thing in reader.read()]
    used = {path for reader in readers for path in reader.used}
    for reader in readers:
        reader.check(used, alone=not things)
    left_out = sorted(upload.left_out + states + [name for reader in readers for name in reader.unread(used)])
    if not things:
        names = f", but {', '.join(left_out)[:200]}" if left_out else ""
        raise UserError(f"there is no file of a known layout{names} (known: {KNOWN})")
    return Contents(things, left_out)


def _without_states(upload: Unpacked) -> tuple[list[Folder], list[str]]:
    """The folders but for states of SAELens trainings, where the SAEs that these ended in are there; and their names.

    A training's last state holds the same SAE as its output, and earlier ones are no seeds of their own.
    """
    states = [folder for folder in upload.folders if saelens.is_state(folder)]
    others = [folder for folder in upload.folders if not saelens.is_state(folder)]
    if not any(checkpoint.WEIGHTS in folder.files for folder in others):
        return upload.folders, []
    return others, [f"{folder.name}/" for folder in states]
