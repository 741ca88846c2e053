"""Small recipes of every architecture, and rows to train them on."""

import torch
from torch import Tensor

from husai_core.saes.recipe import SAERecipe
from husai_core.seeding import generator

COMMON = {"tokens": 64 * 30, "batch_size": 64, "lr": 3e-3, "dead_after_tokens": 128}
RECIPES = {
    "topk": SAERecipe(d_sae=48, k=4, k_aux=5, **COMMON),
    "rising topk": SAERecipe(d_sae=48, k=4, k_aux=5, k_start=1, resample_tokens=128, **COMMON),
    "sparse topk": SAERecipe(d_sae=160, k=4, k_aux=5, **COMMON),
    "batchtopk": SAERecipe(architecture="batchtopk", d_sae=48, k=4, k_aux=5, **COMMON),
    "rising batchtopk": SAERecipe(architecture="batchtopk", d_sae=48, k=4, k_start=2, resample_tokens=64, **COMMON),
    "matryoshka": SAERecipe(architecture="matryoshka", d_sae=48, k=4, k_aux=5, prefixes=(8, 20), **COMMON),
    "switch": SAERecipe(architecture="switch", d_sae=48, k=4, k_aux=5, experts=4, **COMMON),
    "relu": SAERecipe(architecture="relu", d_sae=48, l1=0.1, **COMMON),
    "jumprelu": SAERecipe(architecture="jumprelu", d_sae=48, target_l0=4, bandwidth=0.5, **COMMON),
    "gated": SAERecipe(architecture="gated", d_sae=48, l1=0.1, **COMMON),
}
TOPK, RELU = RECIPES["topk"], RECIPES["relu"]


def rows(n: int = 700, d: int = 16, seed: int = 0) -> Tensor:
    """Sparse combinations of 40 directions."""
    source = generator(seed, "test rows")
    fired = (torch.rand(n, 40, generator=source) < 0.08) * torch.rand(n, 40, generator=source)
    return 3 * fired @ torch.randn(40, d, generator=source) + torch.randn(d, generator=source)
