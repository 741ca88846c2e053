"""HUSAI's own artifacts: activations, whole or in shards, and transformers; its SAEs lie in the SAELens layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open

from husai_core.activations import store
from husai_core.data.modular import SPLITS, vocabulary
from husai_core.errors import UserError, is_host_fault
from husai_core.importers import networks
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported, ModularWeights
from husai_core.importers.values import MOST_WIDTH, agree, checked, finite, plain, read_json, read_safetensors

SHARD = re.compile(r"activations(-\d{5})?\.safetensors")
COLUMNS = {
    "rows": (("F16", "BF16", "F32"), 2),
    "tokens": (("I64",), 2),
    "label": (("I64",), 1),
    "split": (("U8",), 1),
    "sequence": (("I32",), 1),
    "place": (("I32",), 1),
}
"""Types and number of axes of the columns of a shard."""
OPTIONAL = ("sequence", "place")
MOMENTS = ("mean", "variance")
LANGUAGE = (
    "cfg.json names a language model, which is read from config.json, tokenizer.json and model.safetensors together: "
    "import its whole folder"
)
Columns = dict[str, tuple[str, list[int]]]


class _Facts(BaseModel):
    """The types of the `cfg.json` of activations."""

    model_config = ConfigDict(strict=True)

    hook_name: str
    position: str
    source: str
    model_digest: str | None
    p: int | None
    leaks_label: bool
    model: str | None = None
    context: int | None = None
    prepend_bos: bool | None = None
    tokenizer_digest: str | None = None
    n_rows: int | None = None
    d_model: int | None = Field(None, le=MOST_WIDTH)


class _Dataset(BaseModel):
    model_config = ConfigDict(strict=True)

    p: int
    position: Literal["answer", "answer_token"]


class _Network(BaseModel):
    """The types of what the `cfg.json` of a transformer says beside its shape."""

    model_config = ConfigDict(strict=True)

    dataset: _Dataset
    leaks_label: bool = False


class _Named(BaseModel):
    architecture: str | None = None


def activations(shards: Sequence[Path], config: Path) -> Imported:
    """Rows whose columns have the right types and the same lengths; the rows themselves stay in their files."""
    said = read_json(config)
    facts = checked(config.name, _Facts, said)
    columns = [_columns(path) for path in shards]
    for path, of_shard in zip(shards, columns, strict=True):
        if _kinds(of_shard) != _kinds(columns[0]):
            raise UserError(f"{path.name} has other columns than {shards[0].name}")
    stored = store.read(shards, facts.model_dump())
    agree(config.name, "n_rows", facts.n_rows, stored.rows.shape[0])
    agree(config.name, "d_model", facts.d_model, stored.rows.shape[1])
    if int(stored.split.max()) >= len(SPLITS):
        raise UserError(f"{shards[0].name}: split has a value {int(stored.split.max())}; known are 0, 1 and 2")
    for block in stored.rows.blocks():
        finite(shards[0].name, {"rows": block})
    return Imported(shards[0].name, "husai", stored, "activations", plain(said))


def _columns(path: Path) -> Columns:
    """Type and shape of every column of a shard."""
    try:
        with safe_open(path, "pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys() if key not in MOMENTS}  # noqa: SIM118
            columns = {key: (str(tensor.get_dtype()), list(tensor.get_shape())) for key, tensor in slices.items()}
    except SafetensorError as error:
        if is_host_fault(error):
            raise
        raise UserError(f"{path.name} cannot be read: {error}") from error
    if missing := [key for key in COLUMNS if key not in columns and key not in OPTIONAL]:
        raise UserError(f"{path.name} has no tensor {missing[0]}")
    if unknown := sorted(columns.keys() - COLUMNS.keys()):
        raise UserError(f"{path.name} has a tensor {unknown[0][:80]!r}, which activations do not have")
    for key, (dtype, shape) in columns.items():
        types, axes = COLUMNS[key]
        if dtype not in types or len(shape) != axes:
            raise UserError(f"{path.name}: {key} is {dtype} {shape}; expected is {' or '.join(types)}, {axes} axes")
        if shape[0] != columns["rows"][1][0]:
            raise UserError(f"{path.name}: {key} has {shape[0]} entries for {columns['rows'][1][0]} rows")
    if 0 in columns["rows"][1] or columns["rows"][1][1] > MOST_WIDTH:
        raise UserError(f"{path.name}: rows are {columns['rows'][1]}; they must be 1 to {MOST_WIDTH} wide")
    return columns


def _kinds(columns: Columns) -> dict[str, tuple[str, list[int]]]:
    """What the shards have in common: types, and shapes but for the number of rows."""
    return {key: (dtype, shape[1:]) for key, (dtype, shape) in columns.items()}


def transformer(weights: Path, config: Path, folder: Folder | None = None) -> Imported:
    """A network for modular addition, whose weights are those that its `cfg.json` asks for."""
    said = read_json(config)
    if checked(config.name, _Named, said).architecture not in (None, "HookedTransformer"):
        raise UserError(LANGUAGE)
    facts, tensors = checked(config.name, _Network, said), read_safetensors(weights)
    shape = networks.fitting(config.name, said, tensors)
    agree(config.name, "dataset.p", facts.dataset.p, shape["d_vocab"] - vocabulary(0))
    value = ModularWeights(shape, tensors, facts.dataset.position, facts.leaks_label)
    return Imported(weights.name, "husai", value, "transformer", plain(said))
