import math

import pytest
import torch

from husai_core.saes.evaluate import evaluate, explained_variance, normalised_mse
from husai_core.saes.sae import SAE


def identity(d: int = 4) -> SAE:
    """Latents are the positive and negative parts of the coordinates; one latent more never fires."""
    W_enc = torch.cat([torch.eye(d), -torch.eye(d), torch.zeros(d, 1)], dim=1)
    b_enc = torch.zeros(2 * d + 1)
    b_enc[-1] = -1.0
    return SAE(architecture="relu", W_enc=W_enc, b_enc=b_enc, W_dec=W_enc.T.contiguous(), b_dec=torch.zeros(d))


def test_explained_variance_does_not_reward_knowing_the_mean() -> None:
    x = 100 + torch.randn(500, 4)
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(x, x) == 1.0
    assert explained_variance(x, torch.zeros_like(x)) < -1000
    assert normalised_mse(x, x.mean(0).expand_as(x)) < 1e-3


def test_explained_variance_is_a_ratio_of_totals_not_a_mean_over_dimensions() -> None:
    x = torch.randn(5000, 2) * torch.tensor([10.0, 0.1])
    prediction = x.clone()
    prediction[:, 1] = x[:, 1].mean()
    assert explained_variance(x, prediction) > 0.999


def test_figures_of_a_known_sae() -> None:
    figures = evaluate(identity(), torch.randn(300, 4), batch_size=128)
    assert figures.explained_variance == pytest.approx(1.0)
    assert figures.normalised_mse == pytest.approx(0.0, abs=1e-9)
    assert figures.l0 == 4.0
    assert figures.dead_fraction == pytest.approx(1 / 9)


def test_transcoder_is_compared_with_its_targets() -> None:
    x = torch.randn(300, 4)
    sae = identity()
    sae.W_dec = 2 * sae.W_dec
    assert evaluate(sae, x, 2 * x).explained_variance == pytest.approx(1.0)
    assert evaluate(sae, x).explained_variance < 0.1


def test_constant_rows_have_no_explained_variance() -> None:
    assert not math.isfinite(explained_variance(torch.ones(9, 3), torch.zeros(9, 3)))
