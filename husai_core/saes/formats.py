"""Reading what others trained: SAEs, transformers and cached activations in known file layouts.

The earlier HUSAI layout is a `.pt` file: an SAE with `encoder.weight` [n, d], `encoder.bias` and `decoder.weight`
[d, n] (features are columns), a transformer with TransformerLens weights, or a tensor of activations [n, d] beside its
`.meta.pt`. Its TopK keeps the k largest signed pre-activations, without ReLU and without biases on the input or
output; that function is kept exactly, under an architecture that SAELens refuses. Files are never unpickled: only
tensors and plain values are read.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from husai_core.kinds.base import KindError
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE

MOST_BYTES, MOST_RATIO = 8 * 2**30, 20
"""Largest unpacked size of a zip file, and how many times its own size that may be."""
MOST_NAME, MOST_LEVELS = 255, 100
REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
REAL_CODES = ("F16", "BF16", "F32", "F64")
T = TypeVar("T", bound=BaseModel)
SAE_KEYS = {"encoder.weight", "encoder.bias", "decoder.weight"}
BUFFERS = ("mask", "IGNORE")
ALIASES: dict[str, Literal["topk", "relu"]] = {"topk": "topk", "relu": "relu", "standard": "relu"}


class _Metadata(BaseModel):
    hook_name: str | None = None


class _Claims(BaseModel):
    position: str | None = None


class _Config(BaseModel):
    """The types of what is read of a SAELens `cfg.json`."""

    model_config = ConfigDict(strict=True)

    architecture: str
    d_in: int | None = Field(None, ge=1)
    d_sae: int | None = Field(None, ge=1)
    k: int | None = Field(None, ge=1)
    apply_b_dec_to_input: bool = True
    rescale_acts_by_decoder_norm: bool = False
    metadata: _Metadata = _Metadata()
    husai: _Claims = _Claims()


class _Entry(BaseModel):
    """The types of the plain values that are read of an earlier `.pt` file."""

    model_config = ConfigDict(strict=True)

    architecture: str | None
    k: int | None


@dataclass(frozen=True)
class Transformer:
    """A TransformerLens network: its configuration and its parameters."""

    config: dict[str, Any]
    weights: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Activations [n, d] without tokens, labels or split; `facts` is what the file says about them."""

    rows: Tensor
    facts: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """One thing in the uploaded files. `value` is a directory for layouts that are ours already."""

    source: str
    format: str
    value: SAE | Transformer | Rows | Path
    what: str


def find(directories: list[Path], scratch: Path) -> list[Found]:
    """Everything in the uploaded directories; `scratch` is an empty directory to unpack into.

    Raises:
        KindError: a file is none of the known layouts, or is damaged.
    """
    found = []
    for number, group in enumerate(_groups(directories, scratch)):
        group = _together(group, scratch / f"group{number}") if len({p.parent for p in group.values()}) > 1 else group
        found += list(_read(group))
    if not found:
        raise KindError("the upload holds no file of a known layout")
    return found


def _groups(directories: list[Path], scratch: Path) -> list[dict[str, Path]]:
    """Files that belong together, by name; single files of separate uploads are put together."""
    groups: list[dict[str, Path]] = []
    loose: dict[str, Path] = {}
    for number, directory in enumerate(directories):
        files = {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
        for name in [name for name in files if name.endswith(".zip")]:
            groups += _unzip(files.pop(name), scratch / f"zip{number}-{len(groups)}")
        if len(files) > 1:
            groups.append(files)
        elif files.keys() & loose.keys():
            raise KindError(
                f"two uploads hold a file named {next(iter(files))}; upload each checkpoint as one zip file"
            )
        else:
            loose |= files
    return [*groups, loose] if loose else groups


def _unzip(path: Path, target: Path) -> list[dict[str, Path]]:
    """The archive's files, grouped by folder, unpacked into folders of our choice."""
    folders: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
    groups: list[dict[str, Path]] = []
    try:
        with zipfile.ZipFile(path) as archive:
            _bounded(path, archive)
            for member in archive.infolist():
                if not member.is_dir():
                    folders[_safe(path, member).rpartition("/")[0]].append(member)
            for number, (_, members) in enumerate(sorted(folders.items())):
                (target / str(number)).mkdir(parents=True)
                groups.append({})
                for member in members:
                    name = member.filename.rpartition("/")[2]
                    groups[-1][name] = target / str(number) / name
                    with archive.open(member) as source, groups[-1][name].open("wb") as copy:
                        shutil.copyfileobj(source, copy)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
        raise KindError(f"{path.name} is not a readable zip file: {error}") from error
    return groups


def _bounded(path: Path, archive: zipfile.ZipFile) -> None:
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


def _read(group: dict[str, Path]) -> Iterator[Found]:
    """What a group of files holds."""
    rest = dict(group)
    for weights in ("activations.safetensors", "model.safetensors", checkpoint.WEIGHTS):
        if weights in rest and "cfg.json" in rest:
            path = rest.pop(weights)
            yield _husai(path)
            del rest["cfg.json"]
    for name, path in sorted(rest.items()):
        if name.endswith(".pt") and not name.endswith(".meta.pt"):
            yield earlier(path, rest.get(name[: -len(".pt")] + ".meta.pt"))
        elif not name.endswith((".meta.pt", ".txt", ".md")):
            raise KindError(
                f"{name} is of no known layout (known: .pt of earlier HUSAI, SAELens, HUSAI artifacts, zip)"
            )


def _husai(weights: Path) -> Found:
    """An artifact of ours, or a SAELens checkpoint."""
    directory = weights.parent
    cfg = _json(directory / "cfg.json")
    if weights.name == checkpoint.WEIGHTS:
        sae = _saelens(weights, cfg)
        return Found(weights.name, "husai" if "recipe" in sae.provenance else "saelens", sae, "sae")
    if not isinstance(cfg, dict):
        raise KindError(f"the cfg.json beside {weights.name} is not an object")
    try:
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise KindError(f"{weights.name} cannot be read: {error}") from error
    _finite(weights.name, tensors)
    return Found(weights.name, "husai", directory, "activations" if weights.stem == "activations" else "transformer")


def _saelens(weights: Path, cfg: Any) -> SAE:
    """The checkpoint, once its `cfg.json` and the types of its tensors are what `checkpoint.load` expects."""
    asked = _checked("cfg.json", _Config, cfg)
    try:
        with safe_open(weights, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                if file.get_slice(key).get_dtype() not in REAL_CODES or 0 in file.get_slice(key).get_shape():
                    raise KindError(f"{weights.name}: {key} is empty or not of real floating numbers")
    except SafetensorError as error:
        raise KindError(f"{weights.name} cannot be read: {error}") from error
    sae = checkpoint.load(weights.parent)
    for name, wanted, is_ in (("d_in", asked.d_in, sae.d_in), ("d_sae", asked.d_sae, sae.d_sae)):
        if wanted not in (None, is_):
            raise KindError(f"cfg.json says {name} = {wanted}, but the weights have {is_}")
    return sae


def _json(path: Path) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        value = json.loads(path.read_bytes(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates
        plain(value)  # refuses what is nested too deeply
    except RecursionError:
        raise KindError(f"{path.name} holds values that are nested too deeply") from None
    except ValueError as error:
        raise KindError(f"{path.name} cannot be read: {error}") from error
    return value


def _checked(name: str, model: type[T], value: Any) -> T:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise KindError(f"{name}: {place + ': ' if place else ''}{first['msg']}") from None


def earlier(path: Path, meta: Path | None = None) -> Found:
    """A `.pt` file of the earlier HUSAI layout; `meta` is the `.meta.pt` beside cached activations."""
    content = _load_pt(path)
    if isinstance(content, Tensor):
        return Found(path.name, "earlier", _rows(path.name, content, _load_pt(meta) if meta else {}), "activations")
    if not isinstance(content, dict):
        raise KindError(f"{path.name} holds neither a tensor nor a dictionary")
    state = content.get("sae_state_dict", content.get("model_state_dict"))
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise KindError(f"{path.name} has neither sae_state_dict nor model_state_dict")
    if state.keys() >= SAE_KEYS:
        return Found(path.name, "earlier", _sae(path.name, state, content), "sae")
    if "embed.W_E" in state:
        return Found(path.name, "earlier", _transformer(path.name, state, content), "transformer")
    raise KindError(f"{path.name} holds neither an SAE nor a TransformerLens network")


def _load_pt(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _bounded(path, archive)
        return torch.load(path, map_location="cpu", weights_only=True)
    except KindError:
        raise
    except Exception as error:  # torch raises many types for damaged or unsafe files
        reason = str(error).strip().split("\n")[0]
        raise KindError(f"{path.name} is damaged or holds more than plain tensors: {reason}") from error


def _sae(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> SAE:
    weights = {key: _real(name, key, state[key]) for key in (*sorted(SAE_KEYS), "decoder.bias") if key in state}
    if weights["encoder.weight"].ndim != 2 or weights["decoder.weight"].ndim != 2:
        raise KindError(f"{name}: encoder.weight and decoder.weight are matrices")
    W_enc, W_dec = weights["encoder.weight"].T.contiguous(), weights["decoder.weight"].T.contiguous()
    if W_enc.T.shape != W_dec.shape:
        raise KindError(
            f"{name}: encoder {tuple(W_enc.T.shape)} and decoder {tuple(W_dec.T.shape)} do not fit together"
        )
    config = _config(name, content)
    k = plain(content.get("k", state.get("k", _setting(config, "k"))))
    k = int(k) if isinstance(k, float) and k.is_integer() else k
    said = _checked(name, _Entry, {"k": k, "architecture": _setting(config, "architecture")})
    named = said.architecture or ("relu" if said.k is None else "topk")
    if named not in ALIASES:
        raise KindError(f"{name}: architecture {named!r} cannot be run; known are {', '.join(ALIASES)}")
    architecture, bias = ALIASES[named], weights.get("decoder.bias", torch.zeros(W_dec.shape[1]))
    sae = SAE(
        architecture=architecture,
        W_enc=W_enc,
        b_enc=weights["encoder.bias"],
        W_dec=W_dec,
        b_dec=bias,
        k=said.k if architecture == "topk" else None,
        apply_b_dec_to_input=False,
        relu_after_topk=architecture != "topk",
        provenance={"config": config, "metrics": plain(content.get("metrics", {}))},
    )
    checkpoint.check(sae)
    return sae


def _config(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    config = content.get("config")
    if config is not None and not isinstance(config, dict):
        raise KindError(f"{name}: config is not a dictionary")
    return {} if config is None else plain(config)


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of the SAE, whether `config` is its own or the whole experiment's."""
    nested = config.get("sae")
    return config.get(name, nested.get(name) if isinstance(nested, dict) else None)


def _transformer(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> Transformer:
    config = _config(name, content)
    if not config:
        raise KindError(f"{name} has no config, so the network cannot be rebuilt")
    notes = {key: plain(content[key]) for key in ("epoch", "metrics") if key in content}
    weights = {key: _real(name, key, value) for key, value in state.items() if not key.endswith(BUFFERS)}
    return Transformer(config, weights, notes)


def _rows(name: str, tensor: Tensor, meta: Any) -> Rows:
    if tensor.ndim != 2 or len(tensor) < 10:
        raise KindError(
            f"{name} holds a tensor of shape {tuple(tensor.shape)}; activations are [at least 10 rows, width]"
        )
    return Rows(_real(name, "rows", tensor).contiguous(), plain(meta) if isinstance(meta, dict) else {})


def _real(name: str, key: str, tensor: Tensor) -> Tensor:
    """The tensor in fp32, if it is dense, of real floating numbers, not empty, finite, and no larger than its file."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested
    if not dense or tensor.dtype not in REAL or not tensor.numel():
        raise KindError(f"{name}: {key} is not a dense tensor of real floating numbers")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise KindError(f"{name}: {key} repeats its values")
    real = tensor.detach().float()
    _finite(name, {key: real})
    return real


def _finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all() and not key.endswith(BUFFERS):
            raise KindError(f"{name}: {key} contains NaN or infinity")


def plain(value: Any, levels: int = MOST_LEVELS) -> Any:
    """JSON values only: tensors with one element become numbers, anything else that is not exact JSON its text.

    Raises:
        KindError: the value is nested more than `levels` deep.
    """
    if not levels:
        raise KindError(f"a file holds values that are nested more than {MOST_LEVELS} deep")
    if isinstance(value, dict):
        return {str(key): plain(item, levels - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, levels - 1) for item in value]
    if isinstance(value, Tensor):
        readable = value.layout == torch.strided and value.device.type == "cpu" and value.numel() == 1
        return plain(value.item()) if readable else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    return None if value is None else str(value).encode("utf-8", "replace").decode()
