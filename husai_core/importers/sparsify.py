"""sparsify: `sae.safetensors` and `cfg.json`, a TopK SAE or transcoder.

The encoder is a linear layer [d_sae, d_in]; the k largest entries of its ReLU are the latents, and rows of `W_dec`
[d_sae, d_in] the features.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from husai_core.errors import UserError
from husai_core.importers import claims
from husai_core.importers.archives import Folder
from husai_core.importers.imported import Imported
from husai_core.importers.values import checked, plain, read_json, read_safetensors
from husai_core.saes import checkpoint
from husai_core.saes.sae import SAE

TENSORS = {"encoder.weight": 2, "encoder.bias": 1, "W_dec": 2, "b_dec": 1}
"""Names and numbers of axes."""
RUN = "config.json"
"""The settings of the run, in the folder above those of its SAEs."""
MODULE = re.compile(r"(?:^|/)layers\.(\d{1,4})(?:\.([\w.]+))?(?:/seed\d+)?$")
SEED = re.compile(r"/seed(\d{1,15})$")
HOOKS = {"": "hook_resid_post", "mlp": "hook_mlp_out", "attn": "hook_attn_out", "self_attn": "hook_attn_out"}
"""The modules of a layer, and TransformerLens' names of their outputs."""
REFUSED = {
    "skip_connection": "has a skip connection, which is no part of a dictionary",
    "embed_skip": "has a skip connection from the embedding, which is no part of a dictionary",
    "gram_lookup": "subtracts a table of means of n-grams, which is no part of the file",
    "signed": "keeps the largest latents by absolute value, which no architecture here does",
}


class _Config(BaseModel):
    """The types of what is read of `cfg.json`."""

    model_config = ConfigDict(strict=True)

    d_in: int = Field(ge=1)
    k: int = Field(ge=1)
    num_latents: int = Field(0, ge=0)
    expansion_factor: int = Field(32, ge=1)
    activation: Literal["topk"] = "topk"
    transcode: bool = False
    skip_connection: bool = False
    embed_skip: bool = False
    gram_lookup: bool = False
    signed: bool = False


def read(weights: Path, config: Path, folder: Folder) -> Imported:
    """The SAE or transcoder, unless it computes more than a dictionary does."""
    said = read_json(config)
    cfg = checked(config.name, _Config, said)
    for name, reason in REFUSED.items():
        if getattr(cfg, name):
            raise UserError(f"{weights.name} {reason} ({name} in {config.name})")
    tensors = read_safetensors(weights)
    if tensors.keys() != TENSORS.keys():
        raise UserError(f"{weights.name} holds {', '.join(sorted(tensors))[:200]}; expected are {', '.join(TENSORS)}")
    for name, axes in TENSORS.items():
        if tensors[name].ndim != axes:
            raise UserError(f"{weights.name}: {name} has {tensors[name].ndim} axes")
    shape, wanted = (
        tuple(tensors["encoder.weight"].shape),
        (cfg.num_latents or cfg.d_in * cfg.expansion_factor, cfg.d_in),
    )
    if shape != wanted:
        raise UserError(f"encoder.weight has shape {shape}, but {config.name} asks for {wanted}")
    sae = SAE(
        architecture="topk",
        W_enc=tensors["encoder.weight"].T.contiguous(),
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        k=cfg.k,
        apply_b_dec_to_input=not cfg.transcode,
        transcoder=cfg.transcode,
        hook_name=None if cfg.transcode else _hook_name(folder.name),
        provenance={"config": plain(said)},
    )
    checkpoint.check(sae)
    run = plain(read_json(folder.above[RUN])) if RUN in folder.above else None
    beside = (folder.above[RUN],) if isinstance(run, dict) and isinstance(run.get("sae"), dict) else ()
    if beside:
        sae.provenance["run"] = run
    seed = SEED.search(folder.name)
    training = claims.sparsify(said, run if beside else None, int(seed[1]) if seed else None)
    return Imported(weights.name, "sparsify", sae, "sae", training=training, beside=beside)


def _hook_name(folder: str) -> str | None:
    """TransformerLens' name of the module whose output the SAE in a folder of this name reads."""
    module = MODULE.search(folder)
    if module is None:
        return None
    hook = HOOKS.get(module[2] or "")
    return f"blocks.{module[1]}.{hook}" if hook else None
