"""What the files of one folder are: weights with their configuration, and what trainers leave beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from husai_core.errors import UserError
from husai_core.importers import dictionary_learning, earlier, husai, language, saelens, sparsify
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported
from husai_core.saes import checkpoint

LAYOUTS: tuple[tuple[str, str, Callable[[Path, Path, Folder], Imported]], ...] = (
    ("model.safetensors", "cfg.json", husai.transformer),
    ("sae_weights.safetensors", "cfg.json", saelens.read),
    ("sae.safetensors", "cfg.json", sparsify.read),
    ("ae.pt", "config.json", dictionary_learning.read),
)
"""Weights, the configuration beside them, and what reads both."""
KNOWN = (
    "SAELens, dictionary_learning, sparsify, Hugging Face language models, .pt files of the earlier HUSAI, "
    "HUSAI artifacts, and zip files of these"
)
CONFIGS = {weights: config for weights, config, _ in LAYOUTS}
TRAINING_STATE = re.compile(
    r"(optimizer|lr_scheduler|scheduler|rng_state|scaler)(_\d+)?\.(pt|pth|bin)|(rank_\d+_)?state\.pt|trainer_state\.pt|"
    r"training_args\.bin|activations_store_state\.safetensors|sparsity\.safetensors"
)
"""What trainers keep beside the weights in order to go on."""
STEP = re.compile(r"ae_\w+\.pt")
"""The dictionary of a step of dictionary_learning's training, whose configuration lies in the folder above."""
META = ".meta.pt"
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".npy", ".ckpt", ".h5", ".gguf", ".onnx", ".msgpack")


class FolderReader:
    """Reads the things in one folder; `used` are the files that said something about them."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.pending = dict(folder.files)
        self.used = set[Path]()
        self.things = list[Imported]()

    def read(self) -> list[Imported]:
        """The things, under names that tell the folders of an upload apart.

        Raises:
            UserError: weights are damaged, or are of no known layout.
        """
        if self._is_half:
            return []
        with self._naming():
            for thing in self._read():
                self.used |= set(thing.beside)
                self.things.append(replace(thing, source=self.folder.named(thing.source)))
        return self.things

    def check(self, used: Collection[Path], alone: bool) -> None:
        """Refuse weights that nothing reads, and configurations without weights; `alone`: nothing else was read.

        Raises:
            UserError: there are some.
        """
        pending = [name for name, path in self.pending.items() if path not in used and not self._is_half]
        with self._naming():
            for name in sorted(pending, key=lambda name: (name in CONFIGS.values(), name)):
                if name in CONFIGS or husai.SHARD.fullmatch(name):
                    raise UserError(f"{name} needs {CONFIGS.get(name, 'cfg.json')} beside it")
                if name == "cfg.json" or (name == "config.json" and (alone or self._describes_weights(name))):
                    raise UserError(f"{name} describes weights that are missing")
                if name.endswith(WEIGHTS) and not TRAINING_STATE.fullmatch(name) and not self.things:
                    raise UserError(f"{name} is of no known layout (known: {KNOWN})")

    def unread(self, used: Collection[Path]) -> list[str]:
        """The names of the files that nothing read."""
        return [self.folder.named(name) for name, path in self.pending.items() if path not in used]

    @property
    def _is_half(self) -> bool:
        """Whether the folder holds the half of the SAE in the folder above, as our checkpoints do."""
        named = PurePosixPath(self.folder.name).name == checkpoint.HALF
        return named and self.folder.files.keys() & self.folder.above.keys() >= saelens.FILES

    def _read(self) -> Iterator[Imported]:
        if language.applies(self.pending):
            yield language.read(self._take(*language.files(self.pending)))
            return
        shards = sorted(filter(husai.SHARD.fullmatch, self.pending))
        if shards and "cfg.json" in self.pending:
            files = self._take("cfg.json", *shards)
            yield husai.activations([files[name] for name in shards], files["cfg.json"])
        for weights, config, read in LAYOUTS:
            if weights in self.pending and config in self.pending:
                files = self._take(weights, config)
                yield read(files[weights], files[config], self.folder)
        yield from self._steps()
        for name in sorted(self.pending):
            if name.endswith(".pt") and not name.endswith(META) and not TRAINING_STATE.fullmatch(name):
                beside = [meta for meta in (name.removesuffix(".pt") + META,) if meta in self.pending]
                files = self._take(name, *beside)
                yield earlier.read(files[name], next((files[meta] for meta in beside), None))

    def _steps(self) -> Iterator[Imported]:
        """Dictionaries of single steps of a training, in the order of the steps."""
        config = self.folder.files.get("config.json") or self.folder.above.get("config.json")
        names = [name for name in self.pending if STEP.fullmatch(name)]
        if config is None or not dictionary_learning.describes(config):
            return
        for name in sorted(names, key=lambda name: (len(name), name)):
            self.used.add(config)
            yield dictionary_learning.read(self._take(name)[name], config)

    def _take(self, *names: str) -> dict[str, Path]:
        """The files of these names, which are read from here on."""
        files = {name: self.pending.pop(name) for name in names}
        self.used |= set(files.values())
        return files

    def _describes_weights(self, name: str) -> bool:
        return dictionary_learning.describes(self.pending[name])

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Put the folder's name before what is wrong in it."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self.folder.name}: {error}" if self.folder.name else str(error)) from error
