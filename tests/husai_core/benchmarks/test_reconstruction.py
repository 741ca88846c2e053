"""Sums by group give the figures of all rows at once, with any groups left out."""

import numpy as np
import pytest
import torch

from husai_core.benchmarks.against_random import against_random
from husai_core.benchmarks.reconstruction import Reconstruction, Spread
from husai_core.saes.evaluate import evaluate, explained_variance
from husai_core.saes.sae import SAE
from husai_core.stability.intervals import Statistic, average, seed_mean

GROUPS, ROWS, D, D_SAE = 6, 200, 8, 24


def sae(seed: int = 0) -> SAE:
    decoder = torch.nn.functional.normalize(torch.randn(D_SAE, D, generator=torch.Generator().manual_seed(seed)), dim=1)
    return SAE(architecture="topk", k=3, W_enc=decoder.T, b_enc=torch.zeros(D_SAE), W_dec=decoder, b_dec=torch.ones(D))


def rows() -> torch.Tensor:
    """Rows around 1, by group [groups, n, d]; some of the last group have 300 times the usual norm."""
    values = 1 + torch.randn(GROUPS, ROWS, D, generator=torch.Generator().manual_seed(1))
    values[-1, :5] *= 300
    return values


def figures(values: torch.Tensor, limit: float) -> dict[str, Statistic]:
    spread, reconstruction = Spread(GROUPS, torch.full((D,), 3.0), limit), Reconstruction(sae(), GROUPS)
    flat, group = values.flatten(0, 1), torch.arange(GROUPS).repeat_interleave(ROWS)
    for block in torch.arange(len(flat)).split(170):  # some hold rows of two groups
        decoded = reconstruction.add(flat[block], spread.add(flat[block], group[block]))
        assert torch.allclose(decoded, sae()(flat[block]), atol=1e-5)
    return reconstruction.figures(spread, "sequence group", 0.1)


def test_figures_are_those_of_all_rows_at_once() -> None:
    values = rows()
    measured, flat = figures(values, limit=100.0), values.flatten(0, 1)
    whole, usual = evaluate(sae(), flat), flat[flat.norm(dim=1) < 100]
    assert measured["explained_variance_all_rows"].value == pytest.approx(whole.explained_variance)
    expected = explained_variance(usual, sae()(usual))
    assert measured["explained_variance_without_outliers"].value == pytest.approx(expected, rel=1e-6)
    assert measured["explained_variance"].value == pytest.approx(min(expected, whole.explained_variance), rel=1e-6)
    assert measured["normalised_mse_all_rows"].value == pytest.approx(whole.normalised_mse)
    worse = max(measured[f"normalised_mse{end}"].value for end in ("_all_rows", "_without_outliers"))
    assert measured["normalised_mse"].value == worse
    cosines = torch.nn.functional.cosine_similarity(flat.double(), sae()(flat).double())
    assert measured["cosine_similarity_all_rows"].value == pytest.approx(float(cosines.mean()), rel=1e-6)
    assert measured["l0"].value == pytest.approx(whole.l0)
    assert measured["dead_fraction"].value == pytest.approx(whole.dead_fraction)
    dense = (sae().encode(flat) != 0).double().mean(0) > 0.1
    assert measured["dense_fraction"].value == pytest.approx(float(dense.double().mean()))


@pytest.mark.parametrize("left_out", [0, GROUPS - 1])
def test_leaving_a_group_out_is_as_if_it_had_not_been_there(left_out: int) -> None:
    values = rows()
    measured = figures(values, limit=100.0)
    rest = values[[group for group in range(GROUPS) if group != left_out]].flatten(0, 1)
    without = evaluate(sae(), rest)
    assert measured["explained_variance_all_rows"].jackknife[left_out] == pytest.approx(without.explained_variance)
    assert measured["dead_fraction"].jackknife[left_out] == pytest.approx(without.dead_fraction)
    assert measured["l0"].jackknife[left_out] == pytest.approx(without.l0)


def test_intervals_of_the_mean_of_groups_are_those_of_student() -> None:
    drawn = np.random.default_rng(0).standard_normal(12)
    estimate = Statistic(12, lambda w: w @ drawn / w.sum(1), unit="sequence group").estimate()
    half = 2.2009851600916384 * drawn.std(ddof=1) / 12**0.5
    assert (estimate.low, estimate.high) == pytest.approx((drawn.mean() - half, drawn.mean() + half))
    assert (estimate.n, estimate.unit) == (12, "sequence group")
    assert estimate.method.startswith("leave-one-sequence-group-out jackknife")


def test_the_mean_over_seeds_varies_with_seeds_and_with_sequences() -> None:
    """Seeds that agree exactly leave the spread of the sequences; sequences that agree leave that of the seeds."""
    draw = np.random.default_rng(0)

    def stats(values: np.ndarray) -> list[dict[str, Statistic]]:
        return [{"l0": Statistic(30, lambda w, v=v: w @ v / w.sum(1), unit="sequence")} for v in values]

    random = stats(5.0 + np.zeros((3, 30)))
    over_sequences, per_seed = draw.standard_normal(30) + 9, np.array([8.0, 9.0, 10.0])
    same = against_random(stats(np.tile(over_sequences, (3, 1))), random)["l0"]
    lone = against_random(stats(over_sequences[None]), random)["l0"]
    assert same.high is not None
    assert lone.high is not None
    assert same.high == pytest.approx(lone.high)
    assert (same.unit, lone.unit) == ("seed", "sequence")
    apart = against_random(stats(np.tile(per_seed[:, None], (1, 30))), random)
    assert apart["l0"].high == pytest.approx(seed_mean([8.0, 9.0, 10.0]).estimate().high)
    assert apart["l0_minus_random"].value == pytest.approx(4.0)
    two = against_random(stats(np.tile(over_sequences, (2, 1))), random)["l0"]
    assert (two.low, two.method) == (None, "unknown below 3 seeds")


def test_a_difference_to_random_saes_carries_their_spread() -> None:
    flat = np.zeros(30)

    def stats(*levels: float) -> list[dict[str, Statistic]]:
        return [{"l0": Statistic(30, lambda w, v=v: w @ (flat + v) / w.sum(1), unit="sequence")} for v in levels]

    difference = against_random(stats(9.0), stats(4.0, 5.0, 6.0))["l0_minus_random"]
    of_random = seed_mean([4.0, 5.0, 6.0]).estimate()
    assert difference.high is not None
    assert of_random.high is not None
    assert of_random.value is not None
    assert difference.high - 4.0 == pytest.approx(of_random.high - of_random.value)
    assert "random SAEs" in difference.method
    assert average([stats(1.0)[0]["l0"], stats(3.0)[0]["l0"]]).value == 2.0
