"""Latents that autograd can go through, with which `losses` are written.

Shapes: s members, b rows, n latents per member, d columns, e entries of a sparse code. Which latents are active is a
choice without a gradient; their values have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from husai_core.saes.codes import Code, SparseCode


class Latents(Protocol):
    """Latents of a batch."""

    def dense(self) -> Tensor:
        """All of them, inactive ones as 0: [s, b, n]."""

    def decode(self, dictionary: Tensor) -> Tensor:
        """Sum of dictionary rows [s, n, d] weighted by the latents: [s, b, d]."""

    def decode_prefixes(self, dictionary: Tensor, widths: Sequence[int]) -> Tensor:
        """The same sum over the first latents only, for each of some rising widths: [s, b, len(widths), d]."""

    def scaled(self, weights: Tensor) -> Latents:
        """Every row's latents times the row's weight [s, b]."""

    def fired(self) -> Tensor:
        """In how many rows each latent is positive: [s, n]."""


@dataclass(frozen=True)
class DenseLatents:
    """Latents [s, b, n] by plain operations of torch."""

    values: Tensor

    def dense(self) -> Tensor:
        """See `Latents`."""
        return self.values

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Latents`."""
        return self.values @ dictionary

    def decode_prefixes(self, dictionary: Tensor, widths: Sequence[int]) -> Tensor:
        """See `Latents`."""
        return torch.stack([self.values[..., :width] @ dictionary[:, :width] for width in widths], dim=2)

    def scaled(self, weights: Tensor) -> DenseLatents:
        """See `Latents`."""
        return DenseLatents(self.values * weights[..., None])

    def fired(self) -> Tensor:
        """See `Latents`."""
        return (self.values > 0).sum(1)


@dataclass(frozen=True)
class SparseLatents:
    """The active latents only, by the kernels: `values` [e] take the place of the code's."""

    values: Tensor
    code: SparseCode

    def dense(self) -> Tensor:
        """See `Latents`."""
        s, b, n = self.code.shape
        places = self.code.row_of.long() * n + self.code.latents.long() % n
        return self.values.new_zeros(s * b * n).index_add(0, places, self.values).view(s, b, n)

    def decode(self, dictionary: Tensor) -> Tensor:
        """See `Latents`."""
        decoded: Tensor = _Decode.apply(self.values, dictionary, self.code)  # type: ignore[no-untyped-call]
        return decoded

    def decode_prefixes(self, dictionary: Tensor, widths: Sequence[int]) -> Tensor:
        """See `Latents`; `widths` end with n."""
        ends = torch.tensor(widths, dtype=torch.int32, device=self.values.device)
        between = SparseLatents(self.values, self.code.divided(ends)).decode(dictionary)
        return between.view(len(dictionary), -1, len(widths), dictionary.shape[-1]).cumsum(2)

    def scaled(self, weights: Tensor) -> SparseLatents:
        """See `Latents`."""
        return replace(self, values=self.values * weights.flatten()[self.code.row_of])

    def fired(self) -> Tensor:
        """See `Latents`."""
        return self.code.totals((self.values > 0).float())


def selected(code: Code, encoder: Tensor, bias: Tensor, x: Tensor) -> Latents:
    """The latents of a code as a function of what computed them.

    Its values are relu(x @ encoder + bias) at the active latents; x [s or 1, b, d] has no gradient.
    """
    values: Tensor = _Select.apply(encoder, bias, x, code)  # type: ignore[no-untyped-call]
    return SparseLatents(values, code) if isinstance(code, SparseCode) else DenseLatents(values)


class _Select(torch.autograd.Function):
    """The values of a code whose encoder and bias get gradients."""

    @staticmethod
    def forward(ctx: Any, encoder: Tensor, bias: Tensor, x: Tensor, code: Code) -> Tensor:
        """Nothing is computed again; `detach` makes a new tensor, so that the code does not refer to this graph."""
        ctx.code, ctx.shape = code, encoder.shape
        ctx.save_for_backward(x)
        return code.values.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients to the encoder [s, n, d] and the bias [s, n]; none through relu where it is 0."""
        (x,) = ctx.saved_tensors
        to_z = upstream[0] * (ctx.code.values > 0)
        every_latent = slice(0, ctx.shape[0] * ctx.shape[1])
        return ctx.code.outer(to_z, x).block(every_latent).view(ctx.shape), ctx.code.totals(to_z), None, None


class _Decode(torch.autograd.Function):
    """`SparseCode.decode` with other values."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, dictionary: Tensor, code: SparseCode) -> Tensor:
        """[s, b * parts, d]."""
        ctx.code = code
        ctx.save_for_backward(values, dictionary)
        return replace(code, values=values).decode(dictionary)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients to the values [e] and the dictionary [s, n, d]."""
        values, dictionary = ctx.saved_tensors
        rows = upstream[0].contiguous()
        every_latent = slice(0, dictionary.shape[0] * dictionary.shape[1])
        to_dictionary = ctx.code.outer(values, rows).block(every_latent).view_as(dictionary)
        return ctx.code.dots(dictionary, rows), to_dictionary, None
