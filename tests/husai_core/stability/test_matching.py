from __future__ import annotations

from itertools import permutations

import pytest
import torch

from husai_core.stability.matching import activation_pw_mcc, assignment, pw_mcc
from husai_core.stability.overlap import activation_mcc, profiles, pwmcc


def directions(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_assignment_is_the_best_of_all_permutations() -> None:
    similarity = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    rows, columns = assignment(similarity)
    best = max(sum(float(similarity[i, j]) for i, j in enumerate(order)) for order in permutations(range(6)))
    assert float(similarity[rows, columns].sum()) == pytest.approx(best)


def test_a_partner_is_used_once() -> None:
    """Ten copies of one feature all find it by best match, but only one of them by assignment."""
    a = torch.eye(10)[:1].repeat(10, 1)
    b = torch.eye(10)
    assert pwmcc(a, b) == pytest.approx((1 + 0.1) / 2)
    assert pw_mcc(a, b) == pytest.approx(0.1)


def test_never_above_the_best_match() -> None:
    for seed in range(5):
        a, b = directions(40, 12, seed), directions(40, 12, seed + 100)
        assert pw_mcc(a, b) <= pwmcc(a, b) + 1e-6
        assert activation_pw_mcc(a, b) <= activation_mcc(a, b) + 1e-6


def test_unequal_sizes_average_over_the_assigned() -> None:
    a = directions(20, 12)
    assert pw_mcc(a, a[:15]) == pytest.approx(1, abs=1e-5)


def test_activation_matching_sees_through_a_permutation() -> None:
    latents = directions(300, 20).relu()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert activation_pw_mcc(profiles(latents), profiles(latents[:, order])) == pytest.approx(1, abs=1e-5)
    assert activation_pw_mcc(profiles(latents), profiles(directions(300, 20, 7).relu())) < 0.2
