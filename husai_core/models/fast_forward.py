"""The forward pass of a one-layer network without LayerNorm on `[BOS, a, +, b, =]`, read at `=`.

There the keys, values and scores depend on the token and its place alone, so they are computed once per digit instead
of once per row; a row costs its attention mix, the MLP and the unembedding. The result equals TransformerLens'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from husai_core.data.modular import POSITIONS


def applies(cfg: Mapping[str, Any], position: str) -> bool:
    """Whether `logits` can stand in for the network that `cfg` describes."""
    plain = cfg["n_layers"] == 1 and cfg["normalization_type"] is None and cfg["act_fn"] == "relu"
    return plain and position == "answer"


def logits(w: Mapping[str, Tensor], p: int, a: Tensor, b: Tensor) -> Tensor:
    """Logits [n, vocabulary] at `=` for operands `a`, `b` int64 [n]; `w` are TransformerLens' parameters by name."""
    x = _inputs(w, p)
    attention, layer, (heads, d_model, d_head) = "blocks.0.attn.", "blocks.0.mlp.", w["blocks.0.attn.W_Q"].shape
    q = torch.einsum("d,hde->he", x[-1], w[attention + "W_Q"]) + w[attention + "b_Q"]
    k = torch.einsum("td,hde->the", x, w[attention + "W_K"]) + w[attention + "b_K"]
    v = torch.einsum("td,hde->the", x, w[attention + "W_V"]) + w[attention + "b_V"]
    score = (k * q).sum(-1) / d_head**0.5
    constant = score[2 * p :].expand(len(a), -1, -1)
    scores = torch.cat([F.embedding(a, score[:p])[:, None], F.embedding(b, score[p : 2 * p])[:, None], constant], 1)
    share = scores.softmax(1)[..., None]
    digits = share[:, 0] * F.embedding(a, v[:p].flatten(1)).view(-1, heads, d_head)
    digits = digits + share[:, 1] * F.embedding(b, v[p : 2 * p].flatten(1)).view(-1, heads, d_head)
    z = digits + torch.einsum("nsh,she->nhe", share[:, 2:, :, 0], v[2 * p :])
    middle = torch.addmm(x[-1] + w[attention + "b_O"], z.flatten(1), w[attention + "W_O"].reshape(-1, d_model))
    hidden = torch.addmm(w[layer + "b_in"], middle, w[layer + "W_in"]).relu()
    final = middle + torch.addmm(w[layer + "b_out"], hidden, w[layer + "W_out"])
    return torch.addmm(w["unembed.b_U"], final, w["unembed.W_U"])


def _inputs(w: Mapping[str, Tensor], p: int) -> Tensor:
    """What the layer reads [2p + 3, d_model]: digits as `a`, digits as `b`, then BOS, `+` and `=`."""
    embed, place = w["embed.W_E"], w["pos_embed.W_pos"]
    digits = embed[:p]
    constants = torch.stack([embed[p] + place[0], embed[p + 3] + place[2], embed[p + 2] + place[POSITIONS["answer"]]])
    return torch.cat(
        [digits + place[POSITIONS["first_operand"]], digits + place[POSITIONS["second_operand"]], constants]
    )
