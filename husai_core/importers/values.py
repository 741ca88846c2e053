"""Plain values and tensors of foreign files, read without running anything in them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from husai_core.errors import UserError, is_host_fault
from husai_core.importers.archives import bounded, check_entries

MOST_LEVELS, MOST_NODES, CHARACTERS = 100, 100_000, 100
"""How deep plain values may be nested, how many there may be, and how long a text may be that counts as one."""
MOST_WIDTH = 2**13
"""Widest rows and layers: moments of rows take memory of the square of their width."""
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REAL_CODES = ("F16", "BF16", "F32", "F64")
BUFFERS = ("mask", "IGNORE")
"""How the names of a network's constant tensors end, which may be infinite."""
SINGLE = (bool, int, float, complex, torch.dtype, torch.device)
"""Types beside text whose text is short."""
T = TypeVar("T", bound=BaseModel)


def read_json(path: Path) -> Any:
    """The value of a JSON file, if it has neither NaN nor broken text and is not nested too deeply."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        value = json.loads(path.read_bytes(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
        plain(value)  # refuses what is nested too deeply
    except RecursionError:
        raise UserError(f"{path.name} holds values that are nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path.name} cannot be read: {error}") from error
    return value


def checked(name: str, model: type[T], value: Any) -> T:
    """`value`, read from the file `name`, as `model`; a wrong type is one line that says where."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: {place + ': ' if place else ''}{first['msg']}") from None


def agree(name: str, key: str, said: int | None, actual: int) -> None:
    """Raise UserError if the file `name` says another size `key` than the tensors have."""
    if said not in (None, actual):
        raise UserError(f"{name} says {key} = {said}, but the tensors have {actual}")


def read_pt(path: Path) -> Any:
    """What a `torch.save` file holds, never unpickled: plain values and tensors on the CPU."""
    try:
        if zipfile.is_zipfile(path):
            check_entries(path)
            with zipfile.ZipFile(path) as archive:
                bounded(path, archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises many types for damaged or unsafe files
        if is_host_fault(error):
            raise
        reason = str(error).strip().split("\n")[0]
        if reason.startswith("Weights only"):  # what follows is advice to unpickle the file
            reason = "Python objects are never loaded"
        raise UserError(f"{path.name} is damaged or holds more than plain tensors: {reason}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in fp32, all of real floating numbers, not empty and finite."""
    check_safetensors(path)
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    finite(path.name, tensors)
    return tensors


def check_safetensors(path: Path) -> None:
    """Raise UserError unless a safetensors file is whole and all its tensors are of real numbers and not empty."""
    try:
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                if file.get_slice(key).get_dtype() not in REAL_CODES or 0 in file.get_slice(key).get_shape():
                    raise UserError(f"{path.name}: {key} is empty or not of real floating numbers")
    except SafetensorError as error:
        if is_host_fault(error):
            raise
        raise UserError(f"{path.name} cannot be read: {error}") from error


def real(name: str, key: str, tensor: Tensor) -> Tensor:
    """The tensor in fp32, if it is dense, of real floating numbers, not empty, finite, and no larger than its file."""
    return reals(name, {key: tensor})[key]


def reals(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors as by `real`, if they are together no larger than their file."""
    for key, tensor in tensors.items():
        if not _dense(tensor) or tensor.dtype not in REAL or not tensor.numel():
            raise UserError(f"{name}: {key} is not a dense tensor of real floating numbers")
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors.values())}
    if sum(tensor.nbytes for tensor in tensors.values()) > sum(storages.values()):
        raise UserError(f"{name} repeats its values")
    single = {key: tensor.detach().float() for key, tensor in tensors.items()}
    finite(name, single)
    return single


def _dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested


def finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise UserError if a tensor of the file `name`, but for buffers, holds NaN or infinity."""
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all() and not key.endswith(BUFFERS):
            raise UserError(f"{name}: {key} contains NaN or infinity")


def plain(value: Any) -> Any:
    """JSON values only: tensors with one element become numbers, anything else that is not exact JSON its text.

    Raises:
        UserError: the values are nested more than `MOST_LEVELS` deep, or are too many where each is written out as
            often as it is referred to.
    """
    return _Plain().of(value, MOST_LEVELS)


class _Plain:
    """One conversion to JSON values, which counts them."""

    def __init__(self) -> None:
        self.left = MOST_NODES

    def of(self, value: Any, levels: int) -> Any:
        """A value that may hold others, `levels` deep."""
        if not levels:
            raise UserError(f"a file holds values that are nested more than {MOST_LEVELS} deep")
        if isinstance(value, dict):
            self._count(1)
            return {self._text(key): self.of(item, levels - 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            self._count(1)
            return [self.of(item, levels - 1) for item in value]
        if isinstance(value, Tensor):
            single = _dense(value) and value.numel() == 1
            return self._single(value.item() if single else _shape(value))
        return self._single(value)

    def _single(self, value: Any) -> Any:
        self._count(1)
        if isinstance(value, float):
            return value if abs(value) < float("inf") else str(value)
        if isinstance(value, int):
            return value if abs(value) < 2**53 else str(value)
        return None if value is None else self._text(value)

    def _text(self, value: Any) -> str:
        """The text of a single value, and of any other the name of its type."""
        if isinstance(value, str):
            self._count(len(value) // CHARACTERS)
            return value.encode("utf-8", "replace").decode()
        return str(value) if value is None or isinstance(value, SINGLE) else type(value).__name__

    def _count(self, nodes: int) -> None:
        self.left -= nodes
        if self.left < 0:
            raise UserError(f"a file holds more than {MOST_NODES} plain values")


def _shape(tensor: Tensor) -> str:
    return "a nested tensor" if tensor.is_nested else f"tensor of shape {tuple(tensor.shape)}"
