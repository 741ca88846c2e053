"""The arithmetic of a training step, in one interface with several implementations.

Shapes: s members, b rows, n latents per member, d columns, e entries of a sparse code, which are ordered by row.
Indices are int32; a latent's index counts through all members (member * n + latent).
"""

from __future__ import annotations

import logging
import os
import shutil
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from torch import Tensor

from husai_core.identity import KERNELS_USED


class Kernels(Protocol):
    """What a sparse training step needs; every implementation gives the same numbers up to rounding."""

    name: str
    block: int
    """Weights of a dictionary that are updated at once, so that its whole gradient need not exist."""

    def top(self, x: Tensor, encoder: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest pre-activations of every row, exactly.

        `x` is [1, b, d] (one stream for all members) or [s, b, d], `encoder` [s, n, d], `bias` [s, n]; returns values
        and latents, both [s, b, k], in no particular order within a row.
        """

    def largest(self, z: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest of the last axis of z, which is contiguous, and their indices (int64), in no particular order.

        NaN may be passed over where k others are left.
        """

    def above(self, x: Tensor, encoder: Tensor, bias: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All pre-activations above their member's threshold [s].

        Returns values and latents [e], ordered by member, row and latent, and starts [s * b + 1]: where each row's
        entries begin.
        """

    def batch_top(
        self, x: Tensor, encoder: Tensor, bias: Tensor, count: int, guess: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The `count` largest positive pre-activations of each member's batch, exactly.

        `guess` [s], where it is known, says above what value they are likely to lie. Returns values, latents and starts
        as `above` does, and each member's smallest kept value, float64 [s]; 0 where a member has none. Where there are
        fewer than `count`, the rest may be there with values that are not positive.
        """

    def decode(self, values: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """For each row, the sum of the dictionary's rows [s * n, d] times the values: [len(starts) - 1, d]."""

    def dots(self, rows: Tensor, row_of: Tensor, latents: Tensor, starts: Tensor, dictionary: Tensor) -> Tensor:
        """For each entry, the inner product of its row (of `rows` [r, d]) with its latent's dictionary row: [e]."""

    def transpose(self, latents: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """Entries ordered by latent (stable), [e], and where each of n latents' entries begin, [n + 1]."""

    def outer(self, weights: Tensor, source: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
        """For each latent, the sum of weights times `rows[source]`: [len(starts) - 1, d].

        `weights` and `source` [e] are ordered by latent; `starts` may cut out a range of latents.
        """

    def adam(
        self, weights: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: float, step: int, unit: bool
    ) -> None:
        """One Adam step in place on rows [..., d]; `step` counts from 1.

        With `unit`, rows [m, d] keep norm 1: the parallel gradient is projected out first, rows are renormalised after.
        """


BETAS, EPSILON = (0.9, 0.999), 1e-8
logger = logging.getLogger("husai.kernels")


def choose(device: str) -> Kernels:
    """The implementation for a device; `HUSAI_KERNELS=torch` keeps to the one that needs no compiler."""
    from husai_core.errors import UserError
    from husai_core.saes.kernels.torch_cpu import TorchCPU
    from husai_core.saes.kernels.torch_cuda import TorchCUDA
    from husai_core.saes.kernels.torch_int8 import TorchInt8, multiplies_bytes

    setting = os.environ.get("HUSAI_KERNELS", "auto")
    if setting not in ("auto", "torch"):
        raise UserError(f"HUSAI_KERNELS must be auto or torch, not {setting!r}")
    in_torch = TorchCUDA() if device != "cpu" else TorchInt8() if multiplies_bytes() else TorchCPU()
    kernels = (_compiled(device) if setting == "auto" else None) or in_torch
    KERNELS_USED.add(kernels.name)
    return kernels


def _compiled(device: str) -> Kernels | None:
    """The compiled kernels for a device; None where they cannot be compiled."""
    if device == "cpu":
        from husai_core.saes.kernels import cpp

        return cpp.build()
    return _triton()


@cache
def _triton() -> Kernels | None:
    """The kernels in Triton; None without it, or without the C compiler that it calls at its first launch."""
    if find_spec("triton") is None:
        return None
    names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(map(shutil.which, names)):
        logger.warning("Triton finds no C compiler (%s), so the slower kernels in torch are used", " or ".join(names))
        return None
    from husai_core.saes.kernels.triton import Triton

    return Triton()
