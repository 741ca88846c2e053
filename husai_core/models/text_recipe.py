"""The recipe of a small language model: its size and its training."""

from __future__ import annotations

from math import ceil, cos, pi

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TextRecipe(BaseModel):
    """A GPT-NeoX model with rotary positions, and AdamW with linear warm-up and cosine decay."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    n_layers: int = Field(4, ge=1, le=48, description="transformer blocks")
    d_model: int = Field(128, ge=8, le=8192, description="width of the residual stream")
    n_heads: int = Field(4, ge=1, le=64, description="attention heads; d_model / n_heads must be a multiple of 8")
    d_mlp: int = Field(512, ge=4, le=32_768, description="width of the MLP")
    n_ctx: int = Field(128, ge=4, le=8192, description="tokens per sequence, the beginning-of-sequence token included")
    d_vocab: int = Field(4096, ge=257, le=65_536, description="most tokens of the byte-level BPE that the text gives")
    tie_embeddings: bool = Field(False, description="unembed with the embedding's weights")
    tokens: int = Field(5_000_000, ge=1, le=10**12, description="tokens to train on, repeats included")
    batch_size: int = Field(32, ge=1, le=4096, description="sequences per step")
    lr: float = Field(2e-3, gt=0, le=1, description="AdamW learning rate after warm-up; it decays to a tenth")
    weight_decay: float = Field(0.1, ge=0, description="AdamW decoupled weight decay of the matrices")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW decay of the first and second moment")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps with linear warm-up")
    max_norm: float = Field(1.0, gt=0, description="norm to which larger gradients are scaled")
    validation_fraction: float = Field(0.02, gt=0, lt=0.5, description="share of the text for the curve")
    test_fraction: float = Field(0.02, gt=0, lt=0.5, description="share of the text for the reported figures")
    evaluate_every: int = Field(100, ge=1, description="steps between evaluations")

    @model_validator(mode="after")
    def _possible(self) -> TextRecipe:
        if self.d_model % self.n_heads or self.d_model // self.n_heads % 8:
            raise ValueError(f"d_model {self.d_model} / n_heads {self.n_heads} is not a multiple of 8")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError("both betas must be at least 0 and less than 1")
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return ceil(self.tokens / (self.batch_size * self.n_ctx))

    def learning_rate(self, step: int) -> float:
        """The rate of the step after `step` steps."""
        warm = max(1, round(self.warmup_fraction * self.steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        share = (step - warm) / max(1, self.steps - warm)
        return self.lr * (0.1 + 0.45 * (1 + cos(pi * share)))
