"""How an SAE is trained: everything but the data and the seed."""

from __future__ import annotations

from math import ceil
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SAERecipe(BaseModel):
    """Architecture, budget and optimiser of one SAE or transcoder.

    Losses are in normalised units: rows are centred and scaled so that their mean squared norm is their width.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    architecture: Literal["topk", "relu"] = Field("topk", description="TopK (Gao et al. 2024) or ReLU with an L1 term")
    d_sae: int = Field(128, ge=1, description="number of latents")
    k: int | None = Field(None, ge=1, description="active latents per row (topk only)")
    l1: float | None = Field(None, ge=0, description="weight of the summed latents in the loss (relu only)")
    tokens: int = Field(1_200_000, ge=1, description="rows seen in training, counted with repetition")
    batch_size: int = Field(512, ge=1, description="rows per step")
    lr: float = Field(3e-3, gt=0, description="peak learning rate of Adam")
    warmup_fraction: float = Field(0.05, ge=0, le=1, description="share of the steps with rising learning rate")
    decay_fraction: float = Field(0.8, ge=0, le=1, description="share of the steps with falling learning rate")
    aux_coefficient: float = Field(1 / 32, ge=0, description="weight of the loss that revives dead latents (topk)")
    k_aux: int | None = Field(None, ge=1, description="dead latents per row in that loss; half the row width if unset")
    dead_after_tokens: int = Field(20_000, ge=1, description="rows without firing after which a latent is dead")
    normalise: bool = Field(True, description="scale rows to unit variance, folded into the saved weights")

    @model_validator(mode="after")
    def _sparsity(self) -> Self:
        if self.architecture == "topk" and (self.k is None or self.l1 is not None):
            raise ValueError("a topk SAE needs k and takes no l1")
        if self.architecture == "relu" and (self.l1 is None or self.k is not None):
            raise ValueError("a relu SAE needs l1 and takes no k")
        if self.k is not None and self.k > self.d_sae:
            raise ValueError(f"k = {self.k} is larger than d_sae = {self.d_sae}")
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return ceil(self.tokens / self.batch_size)

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step counted from 0: linear warm-up, plateau, linear decay towards 0."""
        rise = (step + 1) / max(1.0, self.warmup_fraction * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay_fraction * self.steps)
        return self.lr * min(1.0, rise, fall)
