"""What jobs read beside their inputs: what comes with the package, and what lies in a mirror or the Hugging Face cache.

A mirror is the folder that `HUSAI_MIRROR` names, with one folder `OWNER/NAME` for each repository of the hub.
The package holds a small language model, text that it never saw (`tools/make_classics.py`), excerpts of what it was
trained on, and texts of other domains (`tools/make_domains.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal, get_args

from husai_core.errors import UserError, is_host_fault
from husai_core.wording import closest, hint

HOME = Path(__file__).parent
HELD_OUT = HOME / "classics-held-out"
"""Books in the public domain that no built-in model was trained on, one file each."""
TEXTS = HOME / "texts"
"""Built-in texts, one file each; its README says whose they are."""
CLASSICS: Final = "classics"
"""The text of the domain that the built-in model was trained on."""
Domain = Literal["classics", "encyclopaedia", "french", "german", "python"]
DOMAINS: tuple[Domain, ...] = tuple(name for name in get_args(Domain) if name != CLASSICS)
"""The texts of other domains."""
MODEL_FILES = ("config.json", "tokenizer.json", "*.safetensors")
"""What the directory of a language model holds at least."""
PATTERNS = ["*.json", "*.safetensors", "*.txt"]
"""The files of a model that are downloaded."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
REGISTRY_NAME = re.compile(r"[\w.-]+/[\w./-]+")


@dataclass(frozen=True)
class Asset:
    """Something that has to be on the machine that runs a job, and `how` to bring it there."""

    name: str
    how: str


def models() -> list[str]:
    """Names of the built-in language models; each is a directory in the Hugging Face layout below `HOME`."""
    return sorted(path.parent.name for path in HOME.glob("*/config.json"))


def domain(name: str) -> Path:
    """The file of a built-in text."""
    return TEXTS / f"{name}.md"


def asset(name: str) -> Asset:
    """A model, or the one file `REPOSITORY:FILE`, with the way to get it."""
    wanted = name.replace(":", " ")
    how = f"hf download {wanted}, on the machine that runs the job, or HUSAI_ALLOW_DOWNLOAD=1 in its environment"
    return Asset(name, how)


def name_problem(name: str) -> str:
    """Why a text is no model's name, or nothing; of a folder, how its files become a model here.

    A name without an owner that is close to a built-in model's is taken as that one, misspelt.
    """
    if HUB_ID.fullmatch(name):
        meant = [] if "/" in name or name in models() else closest(name, models())
        return f"there is no built-in model {name!r}" + hint(meant) if meant else ""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return (
            f"{name!r} looks like a folder: import it with `husai import {name}`, then give the transformer that this "
            "makes as input"
        )
    return f"{name!r} is neither a built-in model ({', '.join(models())}) nor a Hugging Face id"


def registry_name(name: str) -> str:
    """The name of an SAE of SAELens' registry, if it has the form of one.

    Raises:
        ValueError: it has not.
    """
    if not REGISTRY_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not RELEASE/SAE_ID, such as gpt2-small-res-jb/blocks.8.hook_resid_pre")
    return name


def is_present(name: str) -> bool:
    """Whether a model, or the one file `REPOSITORY:FILE`, can be read here without a download."""
    repository, _, file = name.partition(":")
    return (locate_file(repository, file) if file else locate(name)) is not None


def locate(name: str) -> Path | None:
    """The directory of a built-in model, or of one in the mirror or the Hugging Face cache; None if it is not whole."""
    if name in models():
        return HOME / name
    return next((directory for directory in _directories(name) if not _lacking(directory)), None)


def locate_file(repository: str, file: str) -> Path | None:
    """One file of a repository of the hub, in the mirror or the Hugging Face cache; None if it is not here."""
    from huggingface_hub import try_to_load_from_cache

    steps = PurePosixPath(file)
    if not HUB_ID.fullmatch(repository) or steps.is_absolute() or ".." in steps.parts:
        return None
    mirror = os.environ.get("HUSAI_MIRROR")
    if mirror and Path(mirror, repository, file).is_file():
        return Path(mirror, repository, file)
    cached = try_to_load_from_cache(repository, file)
    return Path(cached) if isinstance(cached, str) else None


def missing_files(name: str) -> list[str]:
    """What is not here of a model's files."""
    return min((_lacking(directory) for directory in _directories(name)), key=len, default=list(MODEL_FILES))


def _lacking(directory: Path) -> list[str]:
    return [pattern for pattern in MODEL_FILES if not any(directory.glob(pattern))]


def _directories(name: str) -> Iterator[Path]:
    """Where files of a repository lie: in the mirror, then in the Hugging Face cache."""
    from huggingface_hub import snapshot_download

    if not HUB_ID.fullmatch(name):
        return
    mirror = os.environ.get("HUSAI_MIRROR")
    if mirror and Path(mirror, name).is_dir():
        yield Path(mirror, name)
    try:
        yield Path(snapshot_download(name, allow_patterns=PATTERNS, local_files_only=True))
    except (OSError, ValueError):
        return


def may_download() -> bool:
    """Whether the environment allows downloads."""
    return os.environ.get("HUSAI_ALLOW_DOWNLOAD") == "1"


def download(name: str) -> Path:
    """Fetch a model from the Hugging Face hub into the local cache; returns its directory.

    Raises:
        UserError: it cannot be had, and why.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except (OSError, ValueError) as error:
        raise _not_had(f"the model {name}", error) from error


def download_file(repository: str, file: str) -> Path:
    """Fetch one file of a repository into the local cache; returns its path.

    Raises:
        UserError: it cannot be had, and why.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file))
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise _not_had(f"{file} of {repository}", error) from error


def _not_had(what: str, error: Exception) -> UserError:
    """That a download failed, and why; a fault of this machine's disk is told as it is."""
    if is_host_fault(error):
        raise error
    reason = " ".join(str(error).split())[:300]
    return UserError(f"{what} could not be downloaded: {reason}")
