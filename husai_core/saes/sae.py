"""A trained SAE or transcoder at inference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(kw_only=True)
class SAE:
    """Weights in the SAELens orientation, for raw activations.

    `apply_b_dec_to_input` is true for an SAE with a pre-bias and false for a transcoder. `relu_after_topk` is false
    only for imported TopK SAEs that keep the k largest signed pre-activations.
    """

    architecture: Literal["topk", "relu", "jumprelu"]
    W_enc: Tensor
    """[d_in, d_sae]."""
    b_enc: Tensor
    """[d_sae]."""
    W_dec: Tensor
    """[d_sae, d_out]; one feature per row."""
    b_dec: Tensor
    """[d_out]."""
    threshold: Tensor | None = None
    """[d_sae]; jumprelu only."""
    k: int | None = None
    apply_b_dec_to_input: bool = True
    relu_after_topk: bool = True
    transcoder: bool = False
    hook_name: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    """The checkpoint's `husai` entry: recipe, seed, digests, convergence."""

    @property
    def d_in(self) -> int:
        """Width of the input rows."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[1]

    @property
    def decoder(self) -> Tensor:
        """Decoder rows scaled to unit norm [d_sae, d_out]; a zero row stays zero."""
        return torch.nn.functional.normalize(self.W_dec, dim=-1)

    def encode(self, x: Tensor) -> Tensor:
        """Latents [n, d_sae] of rows [n, d_in]."""
        x = x - self.b_dec if self.apply_b_dec_to_input else x
        z = x @ self.W_enc + self.b_enc
        if self.threshold is not None:
            return z.relu() * (z > self.threshold)
        if self.architecture == "relu":
            return z.relu()
        assert self.k is not None
        values, indices = z.topk(self.k, dim=-1, sorted=False)
        values = values.relu() if self.relu_after_topk else values
        return torch.zeros_like(z).scatter_(-1, indices, values)

    def decode(self, f: Tensor) -> Tensor:
        """Rows [n, d_out] of latents [n, d_sae]."""
        return f @ self.W_dec + self.b_dec

    def __call__(self, x: Tensor) -> Tensor:
        """Reconstruction (or, for a transcoder, prediction) [n, d_out] of rows [n, d_in]."""
        return self.decode(self.encode(x))
