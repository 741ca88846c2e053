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
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from husai_core.kinds.base import KindError
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE

MOST_BYTES = 64 * 2**30
"""Largest unpacked size of a zip file."""
SAE_KEYS = {"encoder.weight", "encoder.bias", "decoder.weight"}
ALIASES: dict[str, Literal["topk", "relu"]] = {"topk": "topk", "relu": "relu", "standard": "relu"}


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
            groups += _unzip(files.pop(name), scratch / f"zip{number}-{name}")
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
    """The archive's files, grouped by folder, unpacked under names of our choice."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > MOST_BYTES:
                raise KindError(f"{path.name} unpacks to more than {MOST_BYTES >> 30} GiB")
            folders = sorted({member.filename.rpartition("/")[0] for member in members})
            groups: list[dict[str, Path]] = [{} for _ in folders]
            for number, folder in enumerate(folders):
                (target / str(number)).mkdir(parents=True)
                for member in members:
                    parent, _, name = member.filename.rpartition("/")
                    if parent == folder and name not in (".", ".."):
                        groups[number][name] = target / str(number) / name
                        with archive.open(member) as source, groups[number][name].open("wb") as copy:
                            shutil.copyfileobj(source, copy)
            return groups
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise KindError(f"{path.name} is not a readable zip file: {error}") from error


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
    if weights.name == checkpoint.WEIGHTS:
        sae = checkpoint.load(directory)
        return Found(weights.name, "husai" if "recipe" in sae.provenance else "saelens", sae, "sae")
    try:
        json.loads((directory / "cfg.json").read_bytes())
        tensors = load_file(weights)
    except (ValueError, SafetensorError) as error:
        raise KindError(f"{weights.name} or its cfg.json cannot be read: {error}") from error
    _finite(weights.name, tensors)
    return Found(weights.name, "husai", directory, "activations" if weights.stem == "activations" else "transformer")


def earlier(path: Path, meta: Path | None = None) -> Found:
    """A `.pt` file of the earlier HUSAI layout; `meta` is the `.meta.pt` beside cached activations."""
    content = _load_pt(path)
    if isinstance(content, Tensor):
        return Found(path.name, "earlier", _rows(path.name, content, _load_pt(meta) if meta else {}), "activations")
    if not isinstance(content, dict):
        raise KindError(f"{path.name} holds neither a tensor nor a dictionary")
    state = content.get("sae_state_dict", content.get("model_state_dict"))
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise KindError(f"{path.name} has neither sae_state_dict nor model_state_dict")
    _finite(path.name, state)
    if state.keys() >= SAE_KEYS:
        return Found(path.name, "earlier", _sae(path.name, state, content), "sae")
    if "embed.W_E" in state:
        return Found(path.name, "earlier", _transformer(path.name, state, content), "transformer")
    raise KindError(f"{path.name} holds neither an SAE nor a TransformerLens network")


def _load_pt(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged or unsafe files
        reason = str(error).strip().split("\n")[0]
        raise KindError(f"{path.name} is damaged or holds more than plain tensors: {reason}") from error


def _sae(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> SAE:
    W_enc, W_dec = state["encoder.weight"].float().T.contiguous(), state["decoder.weight"].float().T.contiguous()
    if W_enc.ndim != 2 or W_enc.T.shape != W_dec.shape:
        raise KindError(
            f"{name}: encoder {tuple(W_enc.T.shape)} and decoder {tuple(W_dec.T.shape)} do not fit together"
        )
    config = _plain(content.get("config") or {})
    k = content.get("k", state.get("k", _setting(config, "k")))
    named = _setting(config, "architecture") or ("relu" if k is None else "topk")
    if named not in ALIASES:
        raise KindError(f"{name}: architecture {named!r} cannot be run; known are {', '.join(ALIASES)}")
    architecture, bias = ALIASES[named], state.get("decoder.bias", torch.zeros(W_dec.shape[1]))
    sae = SAE(
        architecture=architecture,
        W_enc=W_enc,
        b_enc=state["encoder.bias"].float(),
        W_dec=W_dec,
        b_dec=bias.float(),
        k=int(k) if architecture == "topk" and k is not None else None,
        apply_b_dec_to_input=False,
        relu_after_topk=architecture != "topk",
        provenance={"config": config, "metrics": _plain(content.get("metrics") or {})},
    )
    checkpoint.check(sae)
    return sae


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of the SAE, whether `config` is its own or the whole experiment's."""
    nested = config.get("sae")
    return config.get(name, nested.get(name) if isinstance(nested, dict) else None)


def _transformer(name: str, state: Mapping[str, Tensor], content: Mapping[str, Any]) -> Transformer:
    config = _plain(content.get("config") or {})
    if not isinstance(config, dict) or not config:
        raise KindError(f"{name} has no config, so the network cannot be rebuilt")
    notes = {key: _plain(content[key]) for key in ("epoch", "metrics") if key in content}
    return Transformer(config, {key: value.float() for key, value in state.items()}, notes)


def _rows(name: str, tensor: Tensor, meta: Any) -> Rows:
    if tensor.ndim != 2 or not tensor.is_floating_point() or len(tensor) < 10:
        raise KindError(
            f"{name} holds a tensor of shape {tuple(tensor.shape)}; activations are [at least 10 rows, width]"
        )
    _finite(name, {"rows": tensor})
    return Rows(tensor.float().contiguous(), _plain(meta) if isinstance(meta, dict) else {})


def _finite(name: str, tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all() and not key.endswith(("mask", "IGNORE")):
            raise KindError(f"{name}: {key} contains NaN or infinity")


def _plain(value: Any) -> Any:
    """JSON values only: tensors with one element become numbers, anything else that is not JSON its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor) and value.numel() == 1:
        return _plain(value.item())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    return value if isinstance(value, str | int | bool | None) else str(value)
