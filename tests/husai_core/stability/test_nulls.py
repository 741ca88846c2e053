from __future__ import annotations

import pytest
import torch

from husai_core.saes.recipe import SAERecipe
from husai_core.stability import matching
from husai_core.stability.nulls import covariance_matched, gaussian, random_saes, shuffled

PUBLISHED = [(128, 64, 0.2275), (128, 128, 0.2476), (128, 256, 0.2653), (512, 256, 0.1342)]
"""Width, features and mean PWMCC of Gaussian decoders, from an independent simulation of 20 pairs."""


@pytest.mark.parametrize(("width", "features", "expected"), PUBLISHED)
def test_chance_level_agrees_with_an_independent_simulation(width: int, features: int, expected: float) -> None:
    null = gaussian(width, features)["pwmcc"]
    assert null.draws >= 200
    assert null.mean == pytest.approx(expected, abs=0.0015)
    assert 0 < null.standard_error < 0.0005


def test_chance_of_the_metrics_is_ordered() -> None:
    null = gaussian(64, 96)
    assert null["pw_mcc"].mean < null["pwmcc"].mean
    assert null["mmcs_signed"].mean < null["pwmcc"].mean
    assert null["shared_fraction_0_7"].mean == 0
    low, high = null["pwmcc"].estimate().low, null["pwmcc"].estimate().high
    assert low is not None
    assert high is not None
    assert low < null["pwmcc"].mean < high


def test_few_wide_assignments_say_how_sure_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gaussian(16, 97)["pw_mcc"]
    gaussian.cache_clear()
    monkeypatch.setattr(matching, "EXACT", 96)
    wide = gaussian(16, 97)["pw_mcc"]
    gaussian.cache_clear()
    assert (exact.draws, wide.draws) == (24, 4)
    assert wide.mean == pytest.approx(exact.mean, abs=5 * wide.standard_error)
    low, high = wide.estimate().low, wide.estimate().high
    assert high - low == pytest.approx(2 * 3.182 * wide.standard_error, rel=1e-3)  # type: ignore[operator]


def test_shuffling_keeps_marginals_and_breaks_correlation() -> None:
    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0))
    rows = torch.cat([x, 2 * x, x.exp()], dim=1)
    mixed = shuffled(rows, 0, "train")
    torch.testing.assert_close(mixed.sort(dim=0).values, rows.sort(dim=0).values)
    assert float(torch.corrcoef(rows.T)[0, 1]) > 0.99
    assert abs(float(torch.corrcoef(mixed.T)[0, 1])) < 0.06
    assert not torch.equal(shuffled(rows, 0, "test"), mixed)
    assert torch.equal(shuffled(rows, 0, "train"), mixed)


@pytest.mark.parametrize("width", [1, 5])
def test_covariance_matched_rows_keep_mean_and_covariance(width: int) -> None:
    source = torch.Generator().manual_seed(0)
    rows = torch.randn(20_000, width, generator=source) @ torch.randn(width, width, generator=source) + 3
    drawn = covariance_matched(rows, rows, 0, "train")
    assert drawn.shape == rows.shape
    torch.testing.assert_close(drawn.mean(0), rows.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(rows.T), rtol=0.1, atol=0.1)


def test_covariance_matched_rows_are_like_others_and_as_many_as_their_own() -> None:
    source = torch.Generator().manual_seed(0)
    like = torch.randn(20_000, 4, generator=source) @ torch.randn(4, 4, generator=source) + 3
    drawn = covariance_matched(torch.randn(10_000, 4, generator=source), like, 0, "test")
    assert drawn.shape == (10_000, 4)
    torch.testing.assert_close(drawn.mean(0), like.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(like.T), rtol=0.1, atol=0.1)


def test_random_saes_have_the_shape_and_sparsity_of_the_recipe() -> None:
    rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)) + 5
    first, second = random_saes(SAERecipe(d_sae=32, k=4), rows, [0, 1])
    assert not torch.equal(first.decoder, second.decoder)
    assert (first.encode(rows) != 0).sum(1).max() <= 4
    torch.testing.assert_close(first.b_dec, rows.mean(0))
