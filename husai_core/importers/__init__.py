"""Reading what others trained: SAEs, transformers and cached activations in known file layouts, one module each.

Files are never unpickled: only tensors and plain values are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from husai_core.errors import UserError
from husai_core.importers import dictionary_learning, earlier, husai, saelens, sparsify
from husai_core.importers.archives import Group, groups
from husai_core.importers.imported import Found, Rows, Transformer
from husai_core.importers.values import plain

__all__ = ["Found", "Rows", "Transformer", "find", "plain"]

LAYOUTS: tuple[tuple[str, str, Callable[[Path, Path], Found]], ...] = (
    ("model.safetensors", "cfg.json", husai.transformer),
    ("sae_weights.safetensors", "cfg.json", saelens.read),
    ("sae.safetensors", "cfg.json", sparsify.read),
    ("ae.pt", "config.json", dictionary_learning.read),
)
"""Weights, the configuration beside them, and what reads both."""
KNOWN = "SAELens, dictionary_learning, sparsify, .pt of earlier HUSAI, HUSAI artifacts, zip"
CONFIGS = {weights: config for weights, config, _ in LAYOUTS}
BESIDE = ("runner_cfg.json", "sparsity.safetensors", "eval_results.json", "result.json", "manifest.json")
IGNORED = (".meta.pt", ".txt", ".md", *BESIDE)
"""How the names of files end that lie beside checkpoints and say nothing about their function."""


def find(directories: list[Path], scratch: Path) -> list[Found]:
    """Everything in the uploaded directories; `scratch` is an empty directory to unpack into.

    Raises:
        UserError: a file is none of the known layouts, or is damaged.
    """
    found = [thing for group in groups(directories, scratch) for thing in _found(group)]
    if not found:
        raise UserError("the upload holds no file of a known layout")
    return found


def _found(group: Group) -> Iterator[Found]:
    """What a group of files holds, under names that tell the groups of an upload apart."""
    try:
        for thing in _read(group.files):
            yield replace(thing, source=group.named(thing.source))
    except UserError as error:
        raise UserError(f"{group.folder}: {error}" if group.folder else str(error)) from error


def _read(files: dict[str, Path]) -> Iterator[Found]:
    rest = dict(files)
    if "config.json" in rest and any(name.startswith("model") and name.endswith(".safetensors") for name in rest):
        raise UserError(husai.LANGUAGE)
    shards = sorted(filter(husai.SHARD.fullmatch, rest))
    if shards and "cfg.json" in rest:
        yield husai.activations([rest.pop(name) for name in shards], rest.pop("cfg.json"))
    for weights, config, read in LAYOUTS:
        if weights in rest and config in rest:
            yield read(rest.pop(weights), rest.pop(config))
    for name in sorted(rest, key=lambda name: (name in CONFIGS.values(), name)):
        if name.endswith(".pt") and not name.endswith(".meta.pt"):
            yield earlier.read(rest[name], rest.get(name[: -len(".pt")] + ".meta.pt"))
        elif not name.endswith(IGNORED):
            raise UserError(_unread(name))


def _unread(name: str) -> str:
    """Why a file is not read."""
    if name in CONFIGS or husai.SHARD.fullmatch(name):
        return f"{name} needs {CONFIGS.get(name, 'cfg.json')} beside it"
    if name in CONFIGS.values():
        return f"{name} describes weights that are missing"
    return f"{name} is of no known layout (known: {KNOWN})"
