"""Imported SAEs beside SAEs of their claimed recipe: who agrees, who does not, and how often that is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from husai_core.saes.sae import SAE
from husai_core.stability import agreement
from husai_core.stability.intervals import pair_mean

WIDTH, LATENTS, ROWS = 12, 24, 600
DRAWS = 2000


def drawn(seed: int, noise: float = 0.02, k: int = 3) -> SAE:
    """A TopK SAE whose decoder is the planted dictionary with some noise of its own."""
    planted = torch.randn(LATENTS, WIDTH, generator=torch.Generator().manual_seed(99))
    decoder = planted + noise * torch.randn(LATENTS, WIDTH, generator=torch.Generator().manual_seed(seed))
    decoder = torch.nn.functional.normalize(decoder, dim=1)
    return SAE(
        architecture="topk", k=k, W_enc=decoder.T.contiguous(), b_enc=torch.zeros(LATENTS), W_dec=decoder,
        b_dec=torch.zeros(WIDTH),
    )  # fmt: skip


def rows() -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    codes = torch.rand(ROWS, LATENTS, generator=rng)
    codes *= codes >= codes.topk(2, dim=1).values[:, -1:]
    return codes @ drawn(0, 0.0).W_dec


def compare(imported: list[SAE], retrained: list[SAE]) -> agreement.RecipeCheck:
    return agreement.check(imported, retrained, [f"{place:064}" for place in range(len(retrained))], rows())


RETRAINED = [drawn(seed) for seed in range(100, 104)]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_saes_of_one_training_agree_whatever_their_number(count: int) -> None:
    check = compare([drawn(seed) for seed in range(count)], RETRAINED)
    assert (check.agrees, check.rows, len(check.retrained)) == ("yes", ROWS, 4)
    assert list(check.figures) == ["explained_variance", "l0", "pwmcc"]
    figure = check.figures["l0"]
    assert (figure.imported.value, figure.difference.low, figure.difference.high) == (3.0, 0.0, 0.0)
    assert figure.margin == pytest.approx(0.15)
    assert (check.figures["pwmcc"].imported.low is None) == (count < 3), "few SAEs have no spread of their own"


@pytest.mark.parametrize("count", [1, 3])
def test_a_recipe_that_makes_less_alike_saes_is_found_out_by_their_overlap(count: int) -> None:
    check = compare([drawn(seed) for seed in range(count)], [drawn(seed, 1.0) for seed in range(100, 104)])
    assert check.agrees == "no"
    assert (check.figures["pwmcc"].difference.value or 0) > 0.05, "imported SAEs are more alike, or like the mean"


@pytest.mark.parametrize("count", [1, 3])
def test_so_is_another_sparsity(count: int) -> None:
    check = compare([drawn(seed, k=4) for seed in range(count)], RETRAINED)
    assert (check.agrees, check.figures["l0"].agrees) == ("no", "no")
    assert (check.figures["l0"].difference.value, check.figures["l0"].margin) == (1.0, pytest.approx(0.15))


def test_an_sae_that_explains_less_is_found_out_by_that() -> None:
    shrunk = [replace(sae, W_dec=0.7 * sae.W_dec) for sae in (drawn(0), drawn(1), drawn(2))]
    check = compare(shrunk, RETRAINED)
    assert (check.figures["explained_variance"].agrees, check.figures["pwmcc"].agrees) == ("no", "yes")


def test_two_retrained_saes_are_too_few_to_tell() -> None:
    check = compare([drawn(0)], RETRAINED[:2])
    assert check.agrees == "unknown"
    assert check.figures["pwmcc"].difference.low is None


@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("count", [1, 2])
def test_a_few_saes_of_the_same_training_are_covered(count: int, noise: float) -> None:
    """With normal seed effects, and pair noise or none, the interval of the difference holds 0 in 95 % or more."""
    rng, seeds = np.random.default_rng(count), 4
    covered = dict.fromkeys(("means", "overlap"), 0)
    for _ in range(DRAWS):
        effects, pairs = rng.normal(size=count + seeds), rng.normal(size=(count + seeds, count + seeds))
        overlaps = effects[:, None] + effects[None, :] + noise * (pairs + pairs.T) / 2**0.5
        values, among = effects[count:], overlaps[count:, count:]
        mean = agreement.in_their_place(effects[:count].mean() - values.mean(), agreement.beside_others(values), count)
        value = overlaps[:count, count:].mean() - pair_mean(among).value
        overlap = agreement.in_their_place(value, agreement.overlap_beside_others(among), count)
        for name, interval in (("means", mean), ("overlap", overlap)):
            covered[name] += (interval.low or 0) <= 0 <= (interval.high or 0)
    assert 0.935 <= covered["means"] / DRAWS <= 0.965, covered
    assert 0.935 <= covered["overlap"] / DRAWS <= 0.98, covered
