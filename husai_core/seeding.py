"""Seeds: one integer makes every generator that a job uses."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, and ask torch for deterministic algorithms.

    By its debug mode, because `torch.use_deterministic_algorithms` first imports the compiler, for seconds.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("warn")


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator for one named use of a seed, so that adding a use does not shift the others."""
    import torch

    from husai_core.identity import digest

    return torch.Generator().manual_seed(int(digest([seed, *path])[:15], 16))
