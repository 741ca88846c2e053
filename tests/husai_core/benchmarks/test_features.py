"""Twins, chance levels and contexts of latents, against brute force."""

import pytest
import torch
from torch.nn.functional import normalize

from husai_core.benchmarks import features
from husai_core.saes.sae import SAE
from husai_core.stability import matching, wide_matching


def sae(seed: int, n: int = 20, d: int = 8) -> SAE:
    decoder = normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)
    return SAE(architecture="topk", k=3, W_enc=decoder.T, b_enc=torch.zeros(n), W_dec=decoder, b_dec=torch.zeros(d))


@pytest.mark.parametrize("exact", [100, 5])
def test_twins_are_found_behind_any_order_and_sign(exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among all pairs or among the nearest, a dictionary is matched with itself, each latent once."""
    monkeypatch.setattr(matching, "EXACT", exact)
    monkeypatch.setattr(wide_matching, "NEAREST", 4)
    decoder = sae(0).decoder
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    twins = features.twins(decoder, -decoder[order])
    assert torch.equal(order[twins.index], torch.arange(20))
    assert torch.allclose(twins.cosine, torch.ones(20), atol=1e-6)
    others = features.twins(decoder, sae(5).decoder)
    assert sorted(others.index.tolist()) == list(range(20))


def test_the_null_percentile_is_that_of_simulated_directions() -> None:
    d_sae, width = 40, 12
    drawn = normalize(torch.randn(3000, d_sae, width, generator=torch.Generator().manual_seed(0)), dim=2)
    best = drawn[:, :, 0].abs().amax(1)  # every direction is alike: the first axis is one
    for cosine in (0.5, 0.6, 0.7):
        expected = float((best < cosine).double().mean())
        assert float(features.null_percentile(torch.tensor([cosine]), d_sae, width)) == pytest.approx(
            expected, abs=0.03
        )


def test_activity_in_blocks_is_that_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "RESIDENT", 20 * 7)
    first, second = sae(0), sae(1)
    rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(2))
    partner = features.twins(first.decoder, second.decoder).index
    activity = features.Activity(first, [(second, partner)], keep=4)
    for block in rows.split(33):
        activity.add(block)
    latents, twin = first.encode(rows), second.encode(rows)[:, partner]
    assert torch.equal(activity.fired, (latents != 0).sum(0).double())
    top = latents.T.topk(4, dim=1)
    assert torch.allclose(activity.top, top.values)
    assert torch.allclose(latents.T.gather(1, activity.at.clamp(min=0)), activity.top)
    expected = [torch.corrcoef(torch.stack([latents[:, i], twin[:, i]]))[0, 1] for i in range(20)]
    assert torch.allclose(activity.correlations()[0], torch.stack(expected).double(), atol=1e-4, equal_nan=True)


def test_no_block_holds_more_latents_than_may_be_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows come at once; siblings too, and what is kept of them does not grow with the rows."""
    monkeypatch.setattr(features, "RESIDENT", 20 * 7)
    sizes = list[int]()

    class Watched(SAE):
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            latents = super().encode(x)
            sizes.append(latents.numel())
            return latents

    first, second = (Watched(**vars(sae(seed))) for seed in (0, 1))
    activity = features.Activity(first, [(second, torch.arange(20))], keep=4)

    def held() -> int:
        return sum(value.numel() for value in vars(activity).values() if isinstance(value, torch.Tensor))

    before = held()
    activity.add(torch.randn(500, 8, generator=torch.Generator().manual_seed(2)))
    assert activity.n == 500
    assert len(sizes) == 2 * 72
    assert max(sizes) == 20 * 7
    assert held() == before


def test_neighbours_and_logit_effects_are_the_largest() -> None:
    decoder = sae(0).decoder
    cosines, neighbours = features.nearest(decoder, decoder, 2, skip_self=True)
    everything = (decoder @ decoder.T).abs().fill_diagonal_(0)
    assert torch.allclose(cosines, everything.topk(2, dim=1).values)
    assert not (neighbours == torch.arange(20)[:, None]).any()
    unembedding = torch.randn(8, 50, generator=torch.Generator().manual_seed(3)) + 5
    (promoted, tokens), (suppressed, _) = features.logit_effects(decoder, unembedding, 3)
    effects = decoder @ unembedding
    effects = effects - effects.mean(1, keepdim=True)
    assert torch.equal(tokens, effects.topk(3, dim=1).indices)
    assert torch.allclose(promoted, effects.topk(3, dim=1).values)
    assert torch.allclose(suppressed[:, 0], effects.amin(1))


def test_few_siblings_say_little_about_a_latent() -> None:
    assert features.found_interval(3, 3) == pytest.approx((0.2924, 1.0), abs=1e-4)
    assert features.found_interval(0, 3) == pytest.approx((0.0, 0.7076), abs=1e-4)
