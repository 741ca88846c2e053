"""Dead latents that start anew where the reconstruction is worst (Bricken et al. 2023, "Neuron resampling")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from husai_core.seeding import generator

if TYPE_CHECKING:
    from husai_core.saes.architectures.base import StackedSAEs


def resample(stack: StackedSAEs, x: Tensor, y: Tensor) -> None:
    """Start the dead latents of every member anew, from rows x [s or 1, b, d_in] with targets y that it fits badly.

    A row is drawn with the square of its squared error, without replacement and by the member's own seed, so at most b
    latents start anew at a time. The latent's decoder row, and in an SAE its encoder row too, becomes the direction of
    what the row's reconstruction left over; Bricken et al. take the row itself, which most often points to what other
    latents explain already. A transcoder's encoder row becomes the direction of the row. The bias and the moments of
    the optimiser are 0.
    """
    dead, errors = stack.dead, y - stack.predict(x)
    lengths = torch.linalg.vector_norm(stack.encoder, dim=-1)
    for i, seed in enumerate(stack.seeds):
        latents = dead[i].nonzero()[:, 0]
        rows = _drawn(errors[i], len(latents), generator(seed, "resample", stack.step))
        latents = latents[: len(rows)]
        if not len(latents):
            continue
        alive = lengths[i][~dead[i]] if not dead[i].all() else lengths[i]
        decoder = normalize(errors[i, rows], dim=-1)
        encoder = normalize(x[i if len(x) > 1 else 0, rows], dim=-1) if stack.transcoder else decoder
        stack.decoder[i, latents] = decoder
        stack.encoder[i, latents] = encoder * (stack.restart * alive.mean())
        stack.small["b_enc"][i, latents] = 0
        stack.silent[i, latents] = 0
        for name in ("encoder", "decoder", "b_enc"):
            for moment in stack.moments[name]:
                moment[i, latents] = 0


def _drawn(errors: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Places of at most `count` different rows among errors [b, d], which are drawn by the square of their square."""
    weights = errors.double().square().sum(-1).square().cpu().nan_to_num(0.0, posinf=0.0)
    count = min(count, int(weights.count_nonzero()))
    if not count:
        return torch.empty(0, dtype=torch.long, device=errors.device)
    return torch.multinomial(weights, count, generator=source).to(errors.device)
