"""Effects of interventions on a tiny language model, against plain arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from husai_core.benchmarks import interventions, trials
from husai_core.benchmarks.interventions import Effects
from husai_core.benchmarks.sample import Sample
from husai_core.benchmarks.splice import Reading
from husai_core.benchmarks.trials import NONE, Dictionary, Trial
from husai_core.errors import UserError
from husai_core.models import language
from husai_core.saes.sae import SAE
from tests.husai_core.models import tiny_language

HOOK, D, N, LENGTH = "blocks.1.hook_resid_post", 16, 40, 12


def sae(seed: int, n: int = N) -> SAE:
    rng = torch.Generator().manual_seed(seed)
    decoder = normalize(torch.randn(n, D, generator=rng), dim=1)
    lengths = torch.rand(n, 1, generator=rng) + 0.5
    return SAE(
        architecture="topk", k=4, W_enc=decoder.T, b_enc=torch.zeros(n), W_dec=decoder * lengths, b_dec=torch.zeros(D)
    )


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """Eight sequences whose first token is special."""
    model = language.load(tiny_language.write(tmp_path_factory.mktemp("model")))
    tokens = torch.randint(1, model.d_vocab, (8, LENGTH), generator=torch.Generator().manual_seed(0))
    rows = torch.ones(8, LENGTH, dtype=torch.bool)
    rows[:, 0] = False
    whole = Reading(model, Sample(tokens, rows, torch.ones(8, LENGTH - 1, dtype=torch.bool)), HOOK, "cpu")
    return trials.at_predictions(whole)


@pytest.fixture(scope="module")
def siblings(reading: Reading) -> list[Dictionary]:
    return trials.dictionaries(reading, [sae(0), sae(1), sae(2)], lambda n: None)


def drawn(reading: Reading, siblings: list[Dictionary], n: int = 8) -> list[list[Trial]]:
    return trials.draw(reading, siblings, n, 2, 0, lambda n: None)


def logits(reading: Reading, sequence: int, added: Tensor) -> Tensor:
    """Of a whole sequence, about their mean, with `added` [LENGTH, D] at the hook."""
    changed = reading.model.logits_with(reading.sample.tokens[sequence][None], HOOK, lambda x: x + added)
    return (changed[0] - changed[0].mean(1, keepdim=True)).double()


def test_rows_are_those_whose_own_prediction_counts(reading: Reading) -> None:
    assert torch.equal(reading.sample.rows[0], torch.tensor([False, *[True] * (LENGTH - 2), False]))
    assert torch.equal(reading.sample.predicted, reading.sample.rows[:, :-1])
    pairs = Sample(torch.zeros(3, 7), torch.eye(6)[[5] * 3].bool(), torch.ones(3, 1, dtype=torch.bool))
    of_addition = replace(reading, sample=pairs)
    assert trials.at_predictions(of_addition) is of_addition


def test_what_latents_do_on_the_rows_is_counted(reading: Reading, siblings: list[Dictionary]) -> None:
    rows = reading.rows(slice(0, 8))
    for dictionary in siblings:
        latents = dictionary.sae.encode(rows)
        assert torch.allclose(dictionary.frequency, (latents != 0).double().mean(0))
        fires = dictionary.alive
        assert torch.allclose(dictionary.strength[fires], (latents.sum(0) / (latents != 0).sum(0))[fires].double())
        assert sorted(fires.tolist()) == (latents != 0).any(0).nonzero()[:, 0].tolist()


def test_latents_are_drawn_from_every_stratum_and_only_where_they_fire(
    reading: Reading, siblings: list[Dictionary]
) -> None:
    for place, of_sae in enumerate(drawn(reading, siblings)):
        strata = siblings[place].strata
        from_stratum = [sum(trial.latent in stratum for trial in of_sae) for stratum in strata]
        assert from_stratum == [2, 2, 2, 2]
        for trial in of_sae:
            for sequence in trial.sequences:
                latents = siblings[place].sae.encode(reading.rows(slice(sequence, sequence + 1)))
                assert (latents[:, trial.latent] != 0).any()
            assert sorted(trial.twins) == sorted(trial.others) == [b for b in range(3) if b != place]
            stratum_of_latent = next(i for i, stratum in enumerate(strata) if trial.latent in stratum)
            for b, other in trial.others.items():
                assert other in siblings[b].strata[stratum_of_latent]
                assert other != trial.twins[b]
    again, reseeded = drawn(reading, siblings), trials.draw(reading, siblings, 8, 2, 1, lambda n: None)
    chosen = [
        [[t.latent for t in of_sae] for of_sae in sampled] for sampled in (drawn(reading, siblings), again, reseeded)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_twins_are_one_to_one_in_both_directions(siblings: list[Dictionary]) -> None:
    partners = trials.twins(siblings)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        there, back = partners[a][b], partners[b][a]
        paired = (there != NONE).nonzero()[:, 0]
        assert torch.equal(back[there[paired]], paired)
        assert len(paired) == min(len(siblings[a].alive), len(siblings[b].alive))


def test_effects_are_those_of_plain_arithmetic(
    reading: Reading, siblings: list[Dictionary], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = drawn(reading, siblings)[0][0]
    measured = interventions.effects(reading, siblings, trial, 2.0, lambda n: None)
    first, twin, other = siblings[0], trial.twins[2], trial.others[2]
    products = {mode: torch.zeros(3, dtype=torch.float64) for mode in ("ablation", "steering")}
    squares = {mode: torch.zeros(4, dtype=torch.float64) for mode in ("ablation", "steering")}
    change = torch.zeros(reading.model.d_vocab, dtype=torch.float64)
    for sequence in trial.sequences:
        x = reading.model.activations(reading.sample.tokens[sequence][None], [HOOK])[HOOK][0]
        at = reading.sample.rows[sequence]
        f, f_twin = first.sae.encode(x)[:, trial.latent] * at, siblings[2].sae.encode(x)[:, twin]
        length, fires = first.sae.W_dec[trial.latent].norm(), f != 0
        vector = normalize(siblings[2].sae.W_dec[other], dim=0)
        added = {
            "ablation": [
                -f[:, None] * first.sae.W_dec[trial.latent],
                -f[:, None] * length * trial.random,
                -(f_twin * fires)[:, None] * siblings[2].sae.W_dec[twin],
                -f[:, None] * length * vector,
            ],
            "steering": [
                2 * at[:, None] * first.strength[trial.latent] * first.sae.W_dec[trial.latent],
                2 * at[:, None] * first.strength[trial.latent] * length * trial.random,
                2 * at[:, None] * siblings[2].strength[twin] * siblings[2].sae.W_dec[twin],
                2 * at[:, None] * first.strength[trial.latent] * length * vector,
            ],
        }
        clean = logits(reading, sequence, torch.zeros(LENGTH, D))
        for mode, vectors in added.items():
            counted = (fires if mode == "ablation" else at)[:-1]
            changes = [(logits(reading, sequence, v.float()) - clean)[counted] for v in vectors]
            products[mode] += torch.stack([(changes[0] * c).sum() for c in changes[1:]])
            squares[mode] += torch.stack([c.square().sum() for c in changes])
            change += changes[0].sum(0) * (mode == "ablation")
    for mode, sums in measured.items():
        cosines = sums.cosines[[0, 3, 5]]  # the random direction, and twin and other latent of the last sibling
        expected = products[mode] / (squares[mode][0] * squares[mode][1:]).sqrt()
        assert torch.allclose(cosines, torch.where(squares[mode][1:] > 0, expected, 0.0), atol=1e-4)
    assert torch.allclose(measured["ablation"].change[0], change, atol=1e-4)
    monkeypatch.setattr(interventions, "LOGITS", LENGTH * reading.model.d_vocab * 2)
    in_blocks = interventions.effects(reading, siblings, trial, 2.0, lambda n: None)
    for mode, sums in measured.items():
        assert torch.allclose(in_blocks[mode].cosines, sums.cosines, atol=1e-4)
        assert in_blocks[mode].predictions == sums.predictions


def test_the_same_latents_agree_in_any_order_and_reversed_ones_are_opposite(reading: Reading) -> None:
    first = sae(0)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = replace(first, W_enc=first.W_enc[:, order], W_dec=first.W_dec[order])
    negated = replace(first, W_dec=-first.W_dec)
    group = trials.dictionaries(reading, [first, shuffled, negated], lambda n: None)
    of_group = drawn(reading, group)
    measured = [interventions.effects(reading, group, trial, 0.01, lambda n: None) for trial in of_group[0]]
    agreement = interventions.agreements(measured, 5, 3, 0)
    same = torch.ones(len(of_group[0]), dtype=torch.float64)
    for mode in ("ablation", "steering"):
        assert torch.allclose(agreement[f"{mode}_cosine"][:, 0, 1], same, atol=1e-4)
        assert torch.equal(agreement[f"{mode}_sign_agreement"][:, 0, 1], same)
        assert agreement[f"{mode}_cosine"][:, :, 0].isnan().all()
        assert float(agreement[f"{mode}_cosine"][:, 1:, 1:].abs().mean()) < 0.5
    assert torch.allclose(agreement["steering_cosine"][:, 0, 2], -same, atol=0.01)
    assert torch.equal(agreement["steering_sign_agreement"][:, 0, 2], 0 * same)
    assert torch.allclose(trials.twin_cosines(group, of_group[0])[:, 1:], torch.tensor([1.0, -1.0]).double())


def test_what_has_no_effect_agrees_in_nothing() -> None:
    sums, first = Effects(3, 5, "cpu"), torch.tensor([[3.0, -1.0, 0.0, -1.0, -1.0]])
    sums.add(0, torch.stack([first, first * 2, first * 0]), first)
    assert sums.cosines.tolist() == pytest.approx([1.0, 0.0])
    assert sums.sign_agreement(2).tolist() == [1.0, 0.5]
    nothing = Effects(3, 5, "cpu")
    nothing.add(0, torch.stack([first * 0, first, first]), first * 0)
    assert nothing.cosines.isnan().all()
    assert nothing.sign_agreement(2).isnan().all()


def test_a_latent_without_a_twin_agrees_in_nothing(reading: Reading) -> None:
    """Of a dictionary that is wider, some latents stay alone."""
    group = trials.dictionaries(reading, [sae(0), sae(1, 8)], lambda n: None)
    alone = [trial for trial in drawn(reading, group, 40)[0] if trial.twins[1] == NONE]
    assert len(alone) >= len(group[0].alive) - 8 > 0
    sums = interventions.effects(reading, group, alone[0], 1.0, lambda n: None)
    assert {mode: float(effects.cosines[2]) for mode, effects in sums.items()} == {"ablation": 0.0, "steering": 0.0}
    assert trials.twin_cosines(group, alone[:1]).tolist()[0][1] == 0.0


def test_latents_that_never_fire_are_refused(reading: Reading) -> None:
    dead = replace(sae(0), b_enc=torch.cat([torch.zeros(1), torch.full((N - 1,), -1e6)]))
    group = trials.dictionaries(reading, [sae(1), dead], lambda n: None)
    with pytest.raises(UserError, match=f"of SAE number 1 only [01] of {N} latents fire"):
        drawn(reading, group)
