import torch

from husai_core.data.synthetic import world


def test_features_are_unit_directions_and_fire_as_often_as_asked() -> None:
    source = world(0, n_features=32, d_model=16, active=3.0, low=1.0, high=2.0)
    latents = source.latents(20_000, 1)
    assert torch.allclose(source.features.norm(dim=1), torch.ones(32))
    assert abs(float((latents > 0).sum(1).float().mean()) - 3.0) < 0.05
    fired = latents[latents > 0]
    assert 1.0 <= float(fired.min()) <= float(fired.max()) <= 2.0
    assert torch.allclose(source.sample(100, 1), source.latents(100, 1) @ source.features)


def test_structureless_rows_share_mean_and_covariance_but_not_the_features() -> None:
    source = world(0, n_features=32, d_model=16)
    rows, noise = source.sample(200_000, 1), source.structureless(200_000, 2)
    assert torch.allclose(rows.mean(0), noise.mean(0), atol=0.02)
    assert torch.allclose(rows.T.cov(), noise.T.cov(), atol=0.02)
    kurtosis = [float((((x - x.mean(0)) / x.std(0)) ** 4).mean()) for x in (rows, noise)]
    assert kurtosis[0] > 3.2
    assert abs(kurtosis[1] - 3) < 0.05


def test_seeds_decide() -> None:
    assert torch.equal(world(5).sample(8, 1), world(5).sample(8, 1))
    assert not torch.equal(world(5).features, world(6).features)
    assert not torch.equal(world(5).sample(8, 1), world(5).sample(8, 2))
