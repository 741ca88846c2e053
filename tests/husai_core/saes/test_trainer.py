from pathlib import Path

import pytest
import torch
from torch import Tensor

from husai_core.saes import trainer
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.trainer import train
from husai_core.seeding import generator

TOPK = SAERecipe(d_sae=48, k=4, tokens=64 * 30, batch_size=64, lr=3e-3, dead_after_tokens=128, k_aux=5)
RELU = SAERecipe(architecture="relu", d_sae=48, l1=0.1, tokens=64 * 30, batch_size=64, lr=3e-3)


def rows(n: int = 700, d: int = 16, seed: int = 0) -> Tensor:
    source = generator(seed, "test rows")
    fired = (torch.rand(n, 40, generator=source) < 0.08) * torch.rand(n, 40, generator=source)
    return 3 * fired @ torch.randn(40, d, generator=source) + torch.randn(d, generator=source)


def bank(recipe: SAERecipe, targets: Tensor | None = None) -> trainer._Bank:
    made = trainer._Bank(recipe, [3, 4], rows(), targets)
    made.b_enc += 0.1 * torch.randn(made.b_enc.shape, generator=generator(1))
    made.b_dec += 0.1 * torch.randn(made.b_dec.shape, generator=generator(2))
    made.silent[:, ::3] = recipe.dead_after_tokens
    return made


def loss(made: trainer._Bank, x: Tensor, y: Tensor) -> Tensor:
    """The documented losses written densely, for autograd."""
    recipe = made.recipe
    z = (x if made.transcoder else x - made.b_dec[:, None]) @ made.encoder.transpose(1, 2) + made.b_enc[:, None]
    if recipe.k is None:
        f = z.relu()
        error = y - f @ made.decoder - made.b_dec[:, None]
        return (error.square().sum(-1) + (recipe.l1 or 0) * f.sum(-1)).mean(1).sum()
    f = torch.where(z >= z.topk(recipe.k).values[..., -1:], z, 0.0).relu()
    error = y - f @ made.decoder - made.b_dec[:, None]
    dead = (made.silent >= recipe.dead_after_tokens)[:, None].expand_as(z)
    z_dead = z.masked_fill(~dead, -torch.inf)
    f_dead = torch.where(dead & (z_dead >= z_dead.topk(made.k_aux).values[..., -1:]), z, 0.0).relu()
    revival = (error.detach() - f_dead @ made.decoder).square().sum(-1)
    return (error.square().sum(-1) + recipe.aux_coefficient * revival).mean(1).sum()


@pytest.mark.parametrize("recipe", [TOPK, RELU], ids=["topk", "relu"])
@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
def test_gradients_are_those_of_the_documented_loss(
    recipe: SAERecipe, transcoder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bank(recipe, rows(d=10, seed=5) if transcoder else None)
    batch = torch.arange(128).view(2, 64)
    for parameter in made.parameters:
        parameter.requires_grad_()
    expected = torch.autograd.grad(loss(made, made.rows[batch], made.targets[batch]), made.parameters)
    for parameter in made.parameters:
        parameter.requires_grad_(False)
    monkeypatch.setattr(made, "_update", lambda: None)
    made.advance(batch)
    for found, wanted in zip(made.gradients, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_auxiliary_loss_revives_dead_latents() -> None:
    """Half of the latents start dead; with the wrong sign they would be held down, without the term left alone."""

    def dead(coefficient: float) -> float:
        fields = {"aux_coefficient": coefficient, "tokens": 64 * 600, "k_aux": 16, "decay_fraction": 0.3}
        recipe = TOPK.model_copy(update=fields)
        made = trainer._Bank(recipe, [0, 1, 2], rows(4000), None)
        made.b_enc[:, :24] = -3.0
        made.silent[:, :24] = recipe.dead_after_tokens
        stream = trainer._batches(made.seeds, 4000, 64, 0)
        for _ in range(recipe.steps):
            made.advance(next(stream))
        return float((made.silent >= 2000).double().mean())

    none = dead(0.0)
    assert none > 0.3
    assert dead(1 / 32) < 0.6 * none
    assert dead(-1 / 32) > none


def test_decoder_rows_keep_unit_norm_and_gradient_is_orthogonal() -> None:
    made = bank(TOPK)
    made.advance(torch.arange(128).view(2, 64))
    assert (made.to_decoder * (made.decoder)).sum(-1).abs().max() < 0.05 * made.to_decoder.norm(dim=-1).max()
    torch.testing.assert_close(made.decoder.norm(dim=-1), torch.ones(2, 48))


@pytest.mark.parametrize("recipe", [TOPK, RELU], ids=["topk", "relu"])
def test_group_equals_single_runs(recipe: SAERecipe) -> None:
    data = rows()
    group = train(recipe, data, [5, 7, 9], validation=rows(seed=2))
    for member in group:
        (alone,) = train(recipe, data, [member.seed], validation=rows(seed=2))
        for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
            torch.testing.assert_close(getattr(member, name), getattr(alone, name), rtol=1e-5, atol=1e-5)
        assert alone.curve[-1][1] == pytest.approx(member.curve[-1][1], rel=1e-4)


def test_same_seed_repeats_bit_for_bit_and_seeds_differ() -> None:
    first, second = (train(TOPK, rows(), [0, 1], validation=rows(seed=2)) for _ in range(2))
    assert all(
        torch.equal(a.W_dec, b.W_dec) and torch.equal(a.W_enc, b.W_enc) for a, b in zip(first, second, strict=True)
    )
    assert not torch.allclose(first[0].W_dec, first[1].W_dec, atol=0.1)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path: Path) -> None:
    whole = train(TOPK, rows(), [0, 1], validation=rows(seed=2))
    steps = 0

    def stop_halfway(save: trainer.Save) -> None:
        nonlocal steps
        steps += 1
        if steps == 17:
            save(tmp_path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(TOPK, rows(), [0, 1], validation=rows(seed=2), on_state=stop_halfway)
    resumed = train(TOPK, rows(), [0, 1], validation=rows(seed=2), state=tmp_path)
    for a, b in zip(whole, resumed, strict=True):
        assert all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("W_enc", "b_enc", "W_dec", "b_dec"))
        assert (a.curve, a.converged, a.drift_from_init) == (b.curve, b.converged, b.drift_from_init)


@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
def test_saved_weights_take_raw_rows(transcoder: bool) -> None:
    """The validation error measured in training, on normalised rows, is that of the saved SAE on raw rows."""
    data, held = 50 + 7 * rows(), 50 + 7 * rows(seed=2)
    y, held_y = (data[:, :10] ** 2, held[:, :10] ** 2) if transcoder else (None, None)
    (sae,) = train(TOPK, data, [0], validation=held, targets=y, validation_targets=held_y)
    wanted = held if held_y is None else held_y
    error = (sae(held) - wanted).square().sum() / wanted.square().sum()
    assert float(error) == pytest.approx(sae.curve[-1][1], rel=1e-3)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(48))


def test_decoder_bias_starts_at_the_training_mean() -> None:
    recipe = TOPK.model_copy(update={"tokens": 1, "batch_size": 1, "lr": 1e-12})
    (sae,) = train(recipe, rows(), [0], validation=rows(seed=2))
    torch.testing.assert_close(sae.b_dec, rows().mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.W_enc, sae.W_dec.T, rtol=1e-4, atol=1e-4)
    assert sae.drift_from_init == pytest.approx(1.0, abs=1e-4)


def test_epochs_are_permutations_and_can_be_entered_anywhere() -> None:
    stream = trainer._batches([0, 1], 10, 4, 0)
    drawn = torch.cat([next(stream) for _ in range(10)], dim=1)
    assert torch.equal(drawn[:, :10].sort(-1).values, torch.arange(10).expand(2, 10))
    assert torch.equal(drawn[:, 30:].sort(-1).values, torch.arange(10).expand(2, 10))
    assert not torch.equal(drawn[0, :10], drawn[0, 10:20])
    assert not torch.equal(drawn[0], drawn[1])
    entered = trainer._batches([0, 1], 10, 4, 24)
    assert torch.equal(torch.cat([next(entered) for _ in range(4)], dim=1), drawn[:, 24:])


def test_convergence_is_rest_over_the_last_tenth_after_a_fall() -> None:
    flat = [(t, 1.0 if t < 50 else 0.5) for t in range(1, 101)]
    assert trainer.converged(flat)
    assert not trainer.converged([(t, 1.0 - t / 200) for t in range(1, 101)])
    assert not trainer.converged([(100, 0.1)])
    assert not trainer.converged([*flat[:-1], (100, 0.52)])  # rising at the end
    assert not trainer.converged([(t, 0.5) for t in range(1, 101)])  # never learned


def test_measuring_in_chunks_changes_only_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bank(TOPK)
    made.measure(rows(seed=2), None)
    monkeypatch.setattr(trainer, "MEASURED_ROWS", 64)
    made.measure(rows(seed=2), None)
    assert made.curve[1] == pytest.approx(made.curve[0], rel=1e-5)


def test_training_recovers_a_known_dictionary() -> None:
    """A positive control: sparse combinations of 24 known directions in 16 dimensions."""
    source = generator(0, "world")
    truth = torch.nn.functional.normalize(torch.randn(24, 16, generator=source), dim=-1)
    latents = (torch.rand(6000, 24, generator=source) < 0.06) * (0.5 + torch.rand(6000, 24, generator=source))
    data = latents @ truth
    recipe = SAERecipe(d_sae=24, k=3, tokens=200_000, batch_size=256, lr=5e-3, dead_after_tokens=5_000)
    (sae,) = train(recipe, data[:5000], [0], validation=data[5000:])
    found = (truth @ sae.decoder.T).max(1).values
    assert (found > 0.9).float().mean() > 0.8
    assert sae.drift_from_init < 0.7
