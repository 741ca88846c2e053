from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from husai_core.stability import overlap
from husai_core.stability.overlap import activation_mcc, best_matches, mmcs, profiles, pwmcc, shared_fraction


def directions(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_permuted_flipped_and_rescaled_features_are_the_same_features() -> None:
    a = directions(50, 16)
    b = a[torch.randperm(50)] * torch.linspace(-3, 5, 50)[:, None]
    assert pwmcc(a, b) == pytest.approx(1, abs=1e-5)
    assert shared_fraction(a, b) == 1
    assert mmcs(a, -a, signed=True) < 0.9 < mmcs(a, -a)


def test_against_the_whole_matrix() -> None:
    a, b = directions(30, 8), directions(70, 8, 1)
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    assert mmcs(a, b) == pytest.approx(float(cosine.abs().amax(1).mean()), abs=1e-6)
    assert mmcs(b, a, signed=True) == pytest.approx(float(cosine.amax(0).mean()), abs=1e-6)
    assert pwmcc(a, b) == pytest.approx((mmcs(a, b) + mmcs(b, a)) / 2, abs=1e-6)
    shared = (cosine.abs() > 0.7).any(1).double().mean(), (cosine.abs() > 0.7).any(0).double().mean()
    assert shared_fraction(a, b) == pytest.approx(float(sum(shared) / 2))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17))
def test_tiling_changes_nothing(n: int, m: int, tile: int) -> None:
    a, b = directions(n, 5), directions(m, 5, 1)
    whole = best_matches(a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "TILE", tile)
        tiled = best_matches(a, b)
    for name in ("of_a", "of_b", "signed_of_a", "signed_of_b"):
        torch.testing.assert_close(getattr(tiled, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_wide_dictionaries_are_not_transposed() -> None:
    """Fewer features than dimensions: an earlier system compared dimensions instead of features."""
    assert pwmcc(directions(16, 128), directions(16, 128, 1)) == pytest.approx(0.18, abs=0.03)


def test_dead_features_match_nothing() -> None:
    a = torch.cat([directions(5, 8), torch.zeros(5, 8)])
    assert pwmcc(a, a) == pytest.approx(0.5, abs=1e-5)


def test_profiles_give_correlations() -> None:
    latents = directions(200, 6).relu()
    expected = torch.corrcoef(latents.T)
    rows = torch.nn.functional.normalize(profiles(latents), dim=1)
    torch.testing.assert_close(rows @ rows.T, expected, atol=1e-5, rtol=0)
    assert activation_mcc(profiles(latents), profiles(3 * latents[:, [5, 4, 3, 2, 1, 0]] + 1)) == pytest.approx(
        1, abs=1e-5
    )
