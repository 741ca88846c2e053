"""The values that figures of a benchmark can take. Light: no torch, no scipy."""

from __future__ import annotations

from math import inf


def value_range(name: str) -> tuple[float, float]:
    """The least and the largest value that a figure can take."""
    if name.endswith("_fraction"):
        return 0.0, 1.0
    if name.startswith("cosine_similarity"):
        return -1.0, 1.0
    if name.startswith(("explained_variance", "kl_recovered")):
        return -inf, 1.0
    return (-inf, inf) if name.startswith(("loss_recovered", "cross_entropy_increase")) else (0.0, inf)
