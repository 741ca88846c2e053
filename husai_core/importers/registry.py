"""SAEs of SAELens' registry of public SAEs, read by SAELens' own loaders from files that lie on this machine.

The registry (`pretrained_saes.yaml` in the package `sae-lens`) names releases, their SAEs, the repository of the
Hugging Face hub that holds each, and how its files become an SAE. Files come from the worker's mirror or its Hugging
Face cache; nothing is downloaded unless the environment says so, and nothing outside the registry is read.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from husai_core import assets
from husai_core.errors import MissingAssets, UserError, is_host_fault
from husai_core.importers import claims, saelens
from husai_core.importers.archives import Folder
from husai_core.importers.claims import Claim
from husai_core.importers.imported import Contents, Imported
from husai_core.importers.values import plain, read_json
from husai_core.saes import checkpoint

FILES = {
    "sae_lens": ("{path}/cfg.json", "{path}/sae_weights.safetensors"),
    "gemma_2": ("{path}/params.npz",),
    "gemma_2_transcoder": ("{path}/params.npz",),
    "gemma_3": ("{path}/params.safetensors",),
    "dictionary_learning_1": ("{path}/config.json", "{path}/ae.pt"),
    "llama_scope": ("{path}/hyperparams.json", "{path}/checkpoints/final.safetensors"),
    "llama_scope_r1_distill": ("{path}/config.json", "{path}/sae_weights.safetensors"),
    "mwhanna_transcoder": ("wandb-config.yaml", "{path}"),
    "connor_rob_hook_z": ("{stem}_cfg.json", "{path}"),
    "temporal": ("{path}/conf.yaml", "{path}/latest_ckpt.safetensors"),
    "qwen_scope": ("{path}",),
    "goodfire": ("{path}",),
    "deepseek_r1": ("{path}",),
    "sparsify": ("{path}/cfg.json", "{path}/sae.safetensors"),
}
"""What each of SAELens' loaders reads at least, so that all of it can be asked for at once."""
OPTIONAL = ("sparsity.safetensors", "config.yaml", "wandb-config.yaml", "wanb-config.yaml", "config.json")
"""Files that loaders do without, or look for under another name, where a repository does not hold them."""
REFUSED = {
    "mntss_clt_layer_transcoder": "SAELens sums the decoders of a cross-layer transcoder, so it reconstructs nothing",
}
MOST_NAMED = 5


@dataclass(frozen=True)
class Entry:
    """One SAE of the registry."""

    release: str
    sae_id: str
    repository: str
    path: str
    loader: str
    model: str

    @property
    def files(self) -> list[str]:
        """What its loader reads at least."""
        stem = self.path.partition(".pt")[0]
        return [name.format(path=self.path, stem=stem) for name in FILES.get(self.loader, ())]


@dataclass
class Resolver:
    """Stands for `hf_hub_download`: gives files that are here, and downloads others where that is allowed."""

    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file that was read, by repository and name."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Where the files lie, by name."""

    def __call__(self, repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        """The path of a file.

        Raises:
            EntryNotFoundError: SAELens may do without it, and it is not here.
            MissingAssets: it is not here.
            UserError: it could not be downloaded.
        """
        from huggingface_hub.errors import EntryNotFoundError

        name = f"{subfolder}/{filename}" if subfolder else filename
        path = assets.locate_file(repo_id, name)
        if path is None and assets.may_download():
            try:
                path = assets.download_file(repo_id, name)
            except UserError:
                if name.rpartition("/")[2] not in OPTIONAL:
                    raise
        if path is None and name.rpartition("/")[2] in OPTIONAL:
            raise EntryNotFoundError(f"{name} is not here")
        if path is None:
            raise absent([(repo_id, name)])
        self.paths[name] = path
        with path.open("rb") as file:
            self.files[f"{repo_id}/{name}"] = hashlib.file_digest(file, "sha256").hexdigest()
        return str(path)

    def shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        """The shapes of the tensors of a safetensors file, which SAELens would ask the hub for."""
        with safe_open(self(repo_id, filename), "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read(names: Sequence[str], scratch: Path) -> Contents:
    """The SAEs `RELEASE/SAE_ID` of the registry; `scratch` is an empty directory for their files in SAELens' layout.

    Raises:
        MissingAssets: files are not on this machine; it names all that are known to be needed.
        UserError: the registry has no such SAE, a download failed, or the SAE cannot be run here.
    """
    entries = [find(name) for name in names]
    wanted = dict.fromkeys((entry.repository, file) for entry in entries for file in entry.files)
    lacking = [file for file in wanted if assets.locate_file(*file) is None]
    if lacking and not assets.may_download():
        raise absent(lacking)
    things = []
    for place, entry in enumerate(entries):
        (scratch / str(place)).mkdir()
        things.append(_read(entry, scratch / str(place)))
    return Contents(things, [])


def _read(entry: Entry, scratch: Path) -> Imported:
    """One of them."""
    resolver = Resolver()
    said = _load(entry, resolver, scratch)
    thing = saelens.read(scratch / checkpoint.WEIGHTS, scratch / checkpoint.CONFIG, Folder({}))
    thing.value.provenance = {  # type: ignore[union-attr]
        "config": plain(said),
        "registry": {"release": entry.release, "sae_id": entry.sae_id, "model": entry.model},
        "files": resolver.files,
    }
    return replace(thing, source=f"{entry.release}/{entry.sae_id}", training=_claim(entry, resolver))


def find(name: str) -> Entry:
    """The entry `RELEASE/SAE_ID` of the registry.

    Raises:
        UserError: there is none, and the message names some that there are; what SAELens makes of it cannot be used
            here; or `sae-lens` is not installed.
    """
    release, _, sae_id = name.partition("/")
    directory = _module("loading.pretrained_saes_directory").get_pretrained_saes_directory()
    if release not in directory:
        alike = [known for known in directory if release and release.split("-")[0] in known] or list(directory)
        raise UserError(f"SAELens' registry has no release {release!r}; it has {_some(alike)}")
    listed = directory[release]
    if sae_id not in listed.saes_map:
        raise UserError(f"release {release!r} has no SAE {sae_id!r}; it has {_some(list(listed.saes_map))}")
    loader = listed.conversion_func or "sae_lens"
    if loader in REFUSED:
        raise UserError(f"{name} cannot be imported: {REFUSED[loader]}")
    return Entry(release, sae_id, listed.repo_id, listed.saes_map[sae_id], loader, listed.model)


def absent(files: list[tuple[str, str]]) -> MissingAssets:
    """That files, each of a repository, are not on this machine."""
    wanted = [assets.asset(f"{repository}:{file}") for repository, file in files]
    by_repository = {repository: [file for other, file in files if other == repository] for repository, _ in files}
    commands = "; ".join(f"hf download {repository} {' '.join(names)}" for repository, names in by_repository.items())
    names = ", ".join(asset.name for asset in wanted)
    return MissingAssets(f"not on this machine: {names}; get it with: {commands}", wanted)


def _load(entry: Entry, resolver: Resolver, scratch: Path) -> dict[str, Any]:
    """Write the SAE that SAELens makes of the files; returns what its `cfg.json` says."""
    try:
        with _reading_through(resolver), warnings.catch_warnings(action="ignore"):
            sae = _module("saes").SAE.from_pretrained(entry.release, entry.sae_id)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # loaders raise many types for files that are not what they expect
        if is_host_fault(error):
            raise
        raise UserError(f"SAELens cannot read {entry.sae_id}: {' '.join(str(error).split())[:200]}") from error
    state = dict(sae.state_dict())
    sae.process_state_dict_for_saving(state)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, scratch / checkpoint.WEIGHTS)
    said: dict[str, Any] = sae.cfg.to_dict()
    (scratch / checkpoint.CONFIG).write_text(json.dumps(said))
    return said


def _claim(entry: Entry, resolver: Resolver) -> Claim:
    """What the SAE's own configuration says of its training, in the layouts that do."""
    path = resolver.paths.get(entry.files[0])
    if path is None or entry.loader not in ("sae_lens", "dictionary_learning_1"):
        return Claim()
    said = read_json(path)
    if entry.loader == "sae_lens":
        return claims.saelens(checkpoint.current(said), None)
    return claims.dictionary_learning(said, None)


@contextmanager
def _reading_through(resolver: Resolver) -> Iterator[None]:
    """Let SAELens' loaders ask `resolver` for files, in place of the hub."""
    loaders = _module("loading.pretrained_sae_loaders")
    names = {"hf_hub_download": resolver, "get_safetensors_tensor_shapes": resolver.shapes}
    originals = {name: getattr(loaders, name) for name in names}
    try:
        for name, function in names.items():
            setattr(loaders, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(loaders, name, function)


def _module(name: str) -> Any:
    """A module of SAELens."""
    from importlib import import_module

    try:
        return import_module(f"sae_lens.{name}")
    except ImportError as error:
        raise UserError(f"SAELens' registry needs the package sae-lens on the worker: {error}") from error


def _some(names: list[str]) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"
