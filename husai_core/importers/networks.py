"""Small TransformerLens networks: what their configuration may say, and whether weights are theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from husai_core.errors import UserError
from husai_core.importers.values import MOST_WIDTH, checked
from husai_core.models import modular

MOST_MASKED = 2**28
"""Entries of the causal masks of all layers together, which no weight accounts for."""


class Shape(BaseModel):
    """The fields that define a network, with the bounds of what is built."""

    model_config = ConfigDict(strict=True)

    n_layers: int = Field(ge=1, le=256)
    d_model: int = Field(ge=1, le=MOST_WIDTH)
    n_heads: int = Field(ge=1, le=256)
    d_head: int = Field(ge=1, le=MOST_WIDTH)
    d_mlp: int = Field(ge=1, le=MOST_WIDTH)
    n_ctx: int = Field(ge=1)
    d_vocab: int = Field(ge=1)
    act_fn: Literal["relu", "relu2", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "solu", "solu_ln"]
    normalization_type: Literal["LN", "LNPre", "RMS", "RMSPre"] | None = None


def fitting(name: str, config: Any, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """`config`, from the file `name`, as `models.modular.build` takes it, if `weights` are those of such a network.

    Until that is known, nothing is built that takes memory.

    Raises:
        UserError: a field has a wrong type or is out of bounds, or the weights are not those of the network.
    """
    shape = checked(name, Shape, config)
    layers = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    if layers != shape.n_layers:
        raise UserError(f"{name}: the weights do not fit its config: {layers} layers, not {shape.n_layers}")
    if shape.n_layers * shape.n_ctx**2 > MOST_MASKED or shape.n_heads * shape.d_head > MOST_WIDTH:
        raise UserError(f"{name}: the network is too large to be imported")
    actual = {key: tuple(value.shape) for key, value in weights.items()}
    wanted = _shapes(name, shape)
    for key in sorted(wanted.keys() | actual.keys()):
        if actual.get(key) != wanted.get(key):
            is_, should_be = (shapes.get(key, "nothing") for shapes in (actual, wanted))
            raise UserError(f"{name}: the weights do not fit its config: {key[:80]!r} is {is_}, not {should_be}")
    return shape.model_dump()


def _shapes(name: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's parameters, of which none is allocated."""
    try:
        with torch.device("meta"):
            model = modular.build(shape.model_dump(), 0, "meta")
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: its config describes no network: {reason}") from error
    return {key: tuple(value.shape) for key, value in model.named_parameters()}
