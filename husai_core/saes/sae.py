"""A trained SAE or transcoder at inference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Architecture = Literal["topk", "relu", "jumprelu", "gated", "switch"]
Reshape = Literal["none", "hook_z"]
PARAMETERS: dict[Architecture, tuple[str, ...]] = {
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "relu": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "gated": ("W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec"),
    "switch": ("W_enc", "b_enc", "W_dec", "b_dec", "W_router", "b_router"),
}
"""The tensors of each architecture; the others are None."""


@dataclass(kw_only=True)
class SAE:
    """Weights in the SAELens orientation, for raw activations.

    With u = x - b_dec, or x itself without a pre-bias, and z = u W_enc + b_enc, the latents are

    - topk (Gao et al. 2024, arXiv 2406.04093): the k largest entries of relu(z);
    - relu: relu(z);
    - jumprelu (Rajamanoharan et al. 2024, arXiv 2407.14435): relu(z) where z > threshold; BatchTopK and Matryoshka
      SAEs take this form at inference;
    - gated (Rajamanoharan et al. 2024, arXiv 2404.16014): relu(u W_enc exp(r_mag) + b_mag) where u W_enc + b_gate > 0;
    - switch (Mudide et al. 2024, arXiv 2410.08201): the latents are equal consecutive blocks, one per expert; the
      likeliest expert, of probability p in softmax((x - b_router) W_router), gives p times the k largest entries of
      relu(z) in its block.

    `apply_b_dec_to_input` is true for an SAE with a pre-bias and false for a transcoder. `relu_after_topk` is false
    only for imported TopK SAEs that keep the k largest signed pre-activations.
    """

    architecture: Architecture
    W_enc: Tensor
    """[d_in, d_sae]."""
    b_enc: Tensor | None = None
    """[d_sae]; all but gated."""
    W_dec: Tensor
    """[d_sae, d_out]; one feature per row."""
    b_dec: Tensor
    """[d_out]."""
    threshold: Tensor | None = None
    """[d_sae]; jumprelu only."""
    b_gate: Tensor | None = None
    """[d_sae]; gated only, as the next two."""
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None
    W_router: Tensor | None = None
    """[d_in, experts]; switch only, as the next."""
    b_router: Tensor | None = None
    """[d_in]."""
    k: int | None = None
    """Active latents per row; topk and switch only."""
    apply_b_dec_to_input: bool = True
    relu_after_topk: bool = True
    transcoder: bool = False
    hook_name: str | None = None
    hook_head_index: int | None = None
    """The one attention head that is read at `hook_name`; None for all, or where there are no heads."""
    reshape_activations: Reshape = "none"
    """`hook_z`: SAELens puts the heads of its input side by side first; rows here are that already."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """The checkpoint's `husai` entry: recipe, seed, digests, convergence."""

    def __repr__(self) -> str:
        """What tells it apart, in one line; the weights are long."""
        facts = [self.architecture, f"d_in={self.d_in}", f"d_sae={self.d_sae}"]
        facts += [
            f"{name}={value}" for name, value in (("k", self.k), ("hook_name", self.hook_name)) if value is not None
        ]
        return f"{type(self).__name__}({', '.join(facts)})"

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

    def to(self, device: str) -> SAE:
        """The same SAE with its weights on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in PARAMETERS[self.architecture]})

    def encode(self, x: Tensor) -> Tensor:
        """Latents [n, d_sae] of rows [n, d_in]."""
        u = x - self.b_dec if self.apply_b_dec_to_input else x
        if self.architecture == "gated":
            return self._gated(u @ self.W_enc)
        z = u @ self.W_enc + _present(self.b_enc)
        if self.architecture == "jumprelu":
            return z.relu() * (z > _present(self.threshold))
        if self.architecture == "relu":
            return z.relu()
        if self.architecture == "switch":
            probability, others = self._routed(x)
            return probability * self._largest(z.masked_fill(others, -torch.inf))
        return self._largest(z)

    def decode(self, f: Tensor) -> Tensor:
        """Rows [n, d_out] of latents [n, d_sae]."""
        return f @ self.W_dec + self.b_dec

    def __call__(self, x: Tensor) -> Tensor:
        """Reconstruction (or, for a transcoder, prediction) [n, d_out] of rows [n, d_in]."""
        return self.decode(self.encode(x))

    def _gated(self, z: Tensor) -> Tensor:
        magnitude = z * _present(self.r_mag).exp() + _present(self.b_mag)
        return magnitude.relu() * (z + _present(self.b_gate) > 0)

    def _routed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The probability [n, 1] of each row's expert, and which latents [n, d_sae] belong to others."""
        logits = (x - _present(self.b_router)) @ _present(self.W_router)
        probability, expert = logits.softmax(-1).max(-1, keepdim=True)
        owner = torch.arange(self.d_sae, device=x.device) // (self.d_sae // logits.shape[-1])
        return probability, owner != expert

    def _largest(self, z: Tensor) -> Tensor:
        """The k largest entries of each row of z [n, d_sae], zeros elsewhere."""
        assert self.k is not None
        values, indices = z.topk(self.k, dim=-1, sorted=False)
        values = values.relu() if self.relu_after_topk else values
        return torch.zeros_like(z).scatter_(-1, indices, values)


def scale_by_decoder_norms(sae: SAE) -> None:
    """Multiply each latent by the norm of its decoder row, before any selection of the largest, and the row by 1/norm.

    The function stays the same, but for topk and switch, where larger latents are then preferred.
    """
    norms = sae.W_dec.norm(dim=-1)
    sae.W_dec = sae.decoder
    if sae.architecture == "gated":
        sae.r_mag, sae.b_mag = _present(sae.r_mag) + norms.log(), _present(sae.b_mag) * norms
        return
    sae.W_enc, sae.b_enc = sae.W_enc * norms, _present(sae.b_enc) * norms
    if sae.threshold is not None:
        sae.threshold = sae.threshold * norms


def _present(tensor: Tensor | None) -> Tensor:
    """A tensor that the architecture has."""
    assert tensor is not None
    return tensor
