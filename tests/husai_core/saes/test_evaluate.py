import math

import pytest
import torch

from husai_core.activations.rows import StoredRows
from husai_core.saes.evaluate import evaluate, evaluate_all, explained_variance
from husai_core.saes.sae import SAE


def identity(d: int = 4) -> SAE:
    """Latents are the positive and negative parts of the coordinates; one further latent never fires."""
    W_enc = torch.cat([torch.eye(d), -torch.eye(d), torch.zeros(d, 1)], dim=1)
    b_enc = torch.zeros(2 * d + 1)
    b_enc[-1] = -1.0
    return SAE(architecture="relu", W_enc=W_enc, b_enc=b_enc, W_dec=W_enc.T.contiguous(), b_dec=torch.zeros(d))


def test_explained_variance_does_not_reward_knowing_the_mean() -> None:
    x = 100 + torch.randn(500, 4)
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(x, x) == 1.0
    assert explained_variance(x, torch.zeros_like(x)) < -1000


def noisy(seed: int, shift: float = 0.0) -> tuple[SAE, torch.Tensor]:
    """An SAE that is right about most of a row, and rows around `shift`."""
    torch.manual_seed(seed)
    sae = identity()
    sae.W_dec = sae.W_dec + 0.1 * torch.randn_like(sae.W_dec)
    sae.b_dec = torch.full((4,), shift)
    return sae, shift + torch.randn(1000, 4)


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("size", [1, 7, 999, 5000])
def test_blocks_give_the_figures_of_all_rows_at_once(size: int, shift: float) -> None:
    sae, x = noisy(0, shift)
    latents = sae.encode(x)
    error = x - sae.decode(latents)
    figures = evaluate(sae, x, batch_size=size)
    assert figures.explained_variance == pytest.approx(explained_variance(x, sae(x)), rel=1e-9)
    assert figures.normalised_mse == pytest.approx(
        float(error.double().square().sum() / x.double().square().sum()), rel=1e-9
    )
    assert figures.l0 == float((latents != 0).sum()) / 1000
    assert figures.dead_fraction == float((latents == 0).all(0).double().mean())
    assert 0.5 < figures.explained_variance < 0.999


def test_all_saes_read_the_rows_once_after_their_norms_and_only_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Watched(StoredRows):
        def __getitem__(self, key: slice | torch.Tensor) -> torch.Tensor:
            block = super().__getitem__(key)
            read.append(len(block))
            return block

    (first, x), (second, _) = noisy(0), noisy(1)
    reports = list[tuple[int, int]]()
    monkeypatch.setattr("husai_core.saes.evaluate.RESIDENT", 300 * first.d_sae)
    both = evaluate_all([first, second], Watched([x[:450], x[450:]]), on_block=lambda *said: reports.append(said))
    assert read == 2 * [300, 300, 300, 100]
    assert [done for done, _ in reports] == [300, 600, 900, 1200, 1500, 1800, 1900, 2000]
    assert {total for _, total in reports} == {2000}
    assert both == [evaluate(first, x), evaluate(second, x)]


def test_weights_rows_and_sums_are_on_the_given_device() -> None:
    """The device `meta` holds no numbers: all goes well until the figures are read."""
    (sae, x), blocks = noisy(0), []
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        evaluate_all([sae], x, device="meta", on_block=lambda *said: blocks.append(said))
    assert blocks == [(1000, 1000)]


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
    assert not math.isfinite(evaluate(identity(), torch.ones(9, 4), batch_size=2).explained_variance)


def planted(n: int = 20_000, d: int = 16) -> tuple[SAE, torch.Tensor]:
    """Rows of which 0.45 % have 300 times the median norm, in one direction, and an SAE of 16 latents that has it."""
    torch.manual_seed(0)
    rows = torch.randn(n, d)
    at = torch.randperm(n)[: round(0.0045 * n)]
    rows[at] = 300 * float(rows.norm(dim=1).median()) * torch.nn.functional.one_hot(torch.tensor(0), d).float()
    W_dec = torch.eye(16, d)
    return SAE(architecture="topk", k=1, W_enc=W_dec.T, b_enc=torch.zeros(16), W_dec=W_dec, b_dec=torch.zeros(d)), rows


@pytest.mark.parametrize("size", [700, 8192])
def test_a_few_huge_rows_do_not_hide_what_is_missing_of_all_others(size: int) -> None:
    sae, rows = planted()
    figures = evaluate(sae, rows, batch_size=size)
    usual = rows[rows.norm(dim=1) < 100]
    assert figures.explained_variance > 0.997
    assert figures.explained_variance_without_outliers == pytest.approx(explained_variance(usual, sae(usual)), rel=1e-9)
    assert figures.lower_explained_variance == figures.explained_variance_without_outliers < 0.3
    assert figures.outlier_fraction == pytest.approx(0.0045)


def test_rows_without_outliers_have_one_explained_variance() -> None:
    sae, rows = noisy(0)
    figures = evaluate(sae, rows)
    assert figures.explained_variance_without_outliers == figures.explained_variance
    assert figures.outlier_fraction == 0.0
