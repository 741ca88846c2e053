"""Language models in the Hugging Face layout: a folder with the model, its configuration and its tokeniser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from husai_core.errors import UserError
from husai_core.importers.imported import Imported, LanguageFiles
from husai_core.importers.values import checked, plain, read_json

MODEL = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
PICKLED = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")
BESIDE = re.compile(
    r"config\.json|generation_config\.json|model\.safetensors\.index\.json|tokenizer(_config)?\.json|tokenizer\.model|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt)|merges\.txt|chat_template\.(json|jinja)"
)
"""The files of a model beside its weights."""


class _Config(BaseModel):
    """The type of what is read of `config.json`."""

    model_config = ConfigDict(strict=True)

    architectures: list[str] = Field(min_length=1)


def applies(files: Mapping[str, Path]) -> bool:
    """Whether the files of a folder are those of a language model, complete or not."""
    weights = any(MODEL.fullmatch(name) or PICKLED.fullmatch(name) for name in files)
    return "config.json" in files and weights


def files(names: Iterable[str]) -> list[str]:
    """Those of the names that a model is read from."""
    return [name for name in names if MODEL.fullmatch(name) or BESIDE.fullmatch(name) or name == "cfg.json"]


def read(files: Mapping[str, Path]) -> Imported:
    """The model's files, once they are complete and safe; whether they fit together, loading them says.

    Raises:
        UserError: a file is missing, or holds something else.
    """
    said = read_json(files["config.json"])
    config = checked("config.json", _Config, said)
    weights = sorted(name for name in files if MODEL.fullmatch(name))
    if not weights:
        raise UserError("the model's weights are pickled, which is never read: save it with safe_serialization=True")
    if "tokenizer.json" not in files:
        raise UserError(
            "the model has no tokenizer.json beside it: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) "
            "writes one"
        )
    claimed: dict[str, Any] = {"config": plain(said)}
    if "cfg.json" in files:
        claimed["husai"] = plain(read_json(files["cfg.json"]))
    kept = {name: path for name, path in files.items() if name != "cfg.json"}
    value = LanguageFiles(kept, config.architectures[0])
    return Imported(weights[0], "huggingface", value, "transformer", claimed)
