from pathlib import Path

import pytest
import torch

from husai_core.errors import UserError
from husai_core.saes import bank, trainer
from husai_core.saes.recipe import Architecture, SAERecipe
from husai_core.saes.sae import SAE
from husai_core.saes.trainer import train
from husai_core.seeding import generator
from tests.husai_core.saes.recipes import RECIPES, TOPK, rows

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "b_gate", "r_mag", "b_mag", "W_router", "b_router")


def same(a: SAE, b: SAE) -> bool:
    """Whether two SAEs are equal bit for bit."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in WEIGHTS]
    return all(x is y is None or torch.equal(x, y) for x, y in pairs)


def half_of(sae: trainer.TrainedSAE) -> SAE:
    """The copy at half the tokens, which is there."""
    assert sae.half is not None
    return sae.half


def test_auxiliary_loss_revives_dead_latents() -> None:
    """Half of the latents start dead; with the wrong sign they would be held down, without the term left alone."""

    def dead(coefficient: float) -> float:
        fields = {"aux_coefficient": coefficient, "tokens": 64 * 600, "k_aux": 16, "decay_fraction": 0.3}
        recipe = TOPK.model_copy(update=fields)
        trained = bank.Bank([recipe], [0, 1, 2], rows(4000), None, "cpu")
        (stack,) = trained.stacks
        stack.small["b_enc"][:, :24] = -3.0
        stack.silent[:, :24] = recipe.dead_after_tokens
        stream = bank.batches([0, 1, 2], 4000, recipe, 0)
        with torch.no_grad():
            for _ in range(recipe.steps):
                trained.advance(next(stream))
        return float((stack.silent >= 2000).double().mean())

    none = dead(0.0)
    assert none > 0.3
    assert dead(1 / 32) < 0.6 * none
    assert dead(-1 / 32) > none


def test_decoder_rows_keep_unit_norm() -> None:
    for name, recipe in RECIPES.items():
        trained = bank.Bank([recipe], [3, 4], rows(), None, "cpu")
        with torch.no_grad():
            trained.advance(torch.arange(128).view(2, 64))
        norms = trained.stacks[0].decoder.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), msg=name)


@pytest.mark.parametrize("order_seed", [None, 1], ids=["separate orders", "shared order"])
def test_bank_equals_single_runs(order_seed: int | None) -> None:
    """Twenty steps of a bank of all architectures of one width, and of each member alone."""
    change = {"tokens": 64 * 20, "order_seed": order_seed}
    recipes = [recipe.model_copy(update=change) for recipe in RECIPES.values() if recipe.d_sae == 48]
    data, held = rows(), rows(seed=2)
    for member in train(recipes, data, [5, 7], validation=held):
        (alone,) = train(member.recipe, data, [member.seed], validation=held)
        for name in WEIGHTS:
            ours, other = getattr(member, name), getattr(alone, name)
            torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-6, msg=f"{member.recipe.architecture} {name}")
        assert alone.curve[-1][1] == pytest.approx(member.curve[-1][1], rel=1e-5)


def test_bank_ends_where_single_runs_end() -> None:
    """After a whole training, errors and L0 of bank and single runs differ by less than seeds do."""
    data = rows(5000)
    recipe = RECIPES["batchtopk"].model_copy(update={"tokens": 64 * 400, "dead_after_tokens": 5000})
    together = train(recipe, data[:4000], [0, 1, 2], validation=data[4000:])
    errors = torch.tensor([sae.curve[-1][1] for sae in together])
    for sae in together:
        (alone,) = train(recipe, data[:4000], [sae.seed], validation=data[4000:])
        assert abs(alone.curve[-1][1] - sae.curve[-1][1]) < errors.std()
        l0 = [float((each.encode(data[4000:]) != 0).sum(-1).float().mean()) for each in (alone, sae)]
        assert l0[0] == pytest.approx(l0[1], rel=0.05)


def test_recipes_of_a_bank_agree_in_what_they_share() -> None:
    with pytest.raises(ValueError, match="same d_sae"):
        train([TOPK, RECIPES["sparse topk"]], rows(), [0], validation=rows(seed=2))
    with pytest.raises(ValueError, match="same recipe"):
        train([TOPK, TOPK], rows(), [0], validation=rows(seed=2))


def test_same_seed_repeats_bit_for_bit_and_seeds_differ() -> None:
    first, second = (train(TOPK, rows(), [0, 1], validation=rows(seed=2)) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.allclose(first[0].W_dec, first[1].W_dec, atol=0.1)


@pytest.mark.parametrize("stop", [5, 14, 17], ids=["rising", "with a copy on its way", "with a copy at rest"])
@pytest.mark.parametrize("name", RECIPES)
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(name: str, stop: int, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    uninterrupted = train(recipe, rows(), [0, 1], validation=rows(seed=2))
    steps = 0

    def interrupt(save: trainer.Save) -> None:
        nonlocal steps
        steps += 1
        if steps == stop:
            save(tmp_path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(recipe, rows(), [0, 1], validation=rows(seed=2), on_state=interrupt)
    resumed = train(recipe, rows(), [0, 1], validation=rows(seed=2), state=tmp_path)
    for a, b in zip(uninterrupted, resumed, strict=True):
        assert same(a, b)
        assert same(half_of(a), half_of(b))
        assert (a.curve, a.converged, a.drift_from_init) == (b.curve, b.converged, b.drift_from_init)


@pytest.mark.parametrize("name", RECIPES)
def test_the_half_is_a_training_of_its_own_and_the_whole_does_not_notice_it(name: str) -> None:
    recipe, data, held = RECIPES[name], rows(), rows(seed=2)
    assert recipe.half_from < recipe.half_steps < recipe.steps
    measured = train(recipe, data, [0, 1], validation=held)
    alone = train(recipe.halved, data, [0, 1], validation=held)
    without = train(recipe.model_copy(update={"measure_half": False}), data, [0, 1], validation=held)
    for ours, half, whole in zip(measured, alone, without, strict=True):
        assert same(half_of(ours), half)
        assert same(ours, whole)
        assert not same(ours, half)
        assert whole.half is half.half is None
        assert half_of(ours).provenance["recipe"] == recipe.halved.model_dump(mode="json")


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka", "switch"])
def test_sparsity_rises_from_k_start_to_k(architecture: Architecture) -> None:
    fields = {"architecture": architecture, "d_sae": 96, "k": 6, "k_start": 2, "tokens": 64 * 40, "batch_size": 64}
    recipe = SAERecipe.model_validate(fields | ({"experts": 2} if architecture == "switch" else {}))
    trained = bank.Bank([recipe], [3], rows(), None, "cpu")
    (stack,) = trained.stacks
    active = []
    with torch.no_grad():
        for _ in range(recipe.steps):
            _, fired = stack.gradients(*(trained.input(rows()[:64])[None],) * 2)
            active.append(float(fired.sum()) / 64)
            trained.advance(torch.arange(64)[None])
    assert active == [2, 2, 3, 3, 4, 4, 5, 5, *[6] * 32]


@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
def test_dead_latents_start_anew_at_what_was_left_over(transcoder: bool) -> None:
    recipe = TOPK.model_copy(update={"resample_tokens": 64, "aux_coefficient": 0.0})
    targets = rows(d=10, seed=5) if transcoder else None
    banks = [bank.Bank([recipe], seeds, rows(), targets, "cpu") for seeds in ([3, 4], [4])]
    for trained in banks:
        (stack,) = trained.stacks
        stack.silent[:, :3] = recipe.dead_after_tokens
        stack.small["b_enc"][:, :3] = -50.0
        with torch.no_grad():
            trained.advance(torch.arange(64)[None])
    (stack,), (alone,) = banks[0].stacks, banks[1].stacks
    x = banks[0].input(rows()[:64])[None]
    y = x if targets is None else banks[0].target(targets[:64])[None]
    torch.testing.assert_close(stack.decoder[1], alone.decoder[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(stack.decoder[0, :3], stack.decoder[1, :3], atol=0.1)
    assert stack.silent[:, :3].count_nonzero() == stack.small["b_enc"][:, :3].count_nonzero() == 0
    for name in ("encoder", "decoder", "b_enc"):
        first, second = stack.moments[name]
        assert first[:, :3].count_nonzero() == second[:, :3].count_nonzero() == 0
        assert first[:, 3:].count_nonzero() > 0
    stack.small["b_enc"][:, :3] = -50.0  # the reconstruction that the latents started from was made without them
    left = torch.nn.functional.normalize(y - stack.predict(x), dim=-1)
    torch.testing.assert_close((stack.decoder[:, :3] @ left.transpose(1, 2)).amax(-1), torch.ones(2, 3))
    read = torch.nn.functional.normalize(x, dim=-1) if transcoder else left
    lengths = stack.encoder.norm(dim=-1)
    torch.testing.assert_close(lengths[:, :3], lengths[:, 3:].mean(1, keepdim=True).expand(-1, 3))
    encoder = torch.nn.functional.normalize(stack.encoder[:, :3], dim=-1)
    torch.testing.assert_close((encoder @ read.transpose(1, 2)).amax(-1), torch.ones(2, 3))


@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
@pytest.mark.parametrize("name", RECIPES)
def test_saved_weights_take_raw_rows(name: str, transcoder: bool) -> None:
    """The validation error measured in training, on normalised rows, is that of the saved SAE on raw rows."""
    data, held = 50 + 7 * rows(), 50 + 7 * rows(seed=2)
    y, held_y = (data[:, :10] ** 2, held[:, :10] ** 2) if transcoder else (None, None)
    (sae,) = train(RECIPES[name], data, [0], validation=held, targets=y, validation_targets=held_y)
    wanted = held if held_y is None else held_y
    error = (sae(held) - wanted).square().sum() / wanted.square().sum()
    assert float(error) == pytest.approx(sae.curve[-1][1], rel=1e-3)
    torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(sae.d_sae))


@pytest.mark.parametrize("width", [48, 512], ids=["by matrix products", "by integers if compiled"])
def test_selection_finds_all_of_the_largest_throughout_training(width: int) -> None:
    recalls = list[float | None]()
    recipe = TOPK.model_copy(update={"d_sae": width, "tokens": 64 * 200})
    train(
        recipe,
        rows(),
        [1, 2],
        validation=rows(seed=2),
        on_step=lambda _done, _all, figures: recalls.append(figures["selection_recall"]) if figures else None,
    )
    assert recalls == [1.0] * 50


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka", "jumprelu"])
def test_thresholds_give_the_wanted_sparsity_on_held_out_rows(name: str) -> None:
    recipe = RECIPES[name].model_copy(update={"tokens": 64 * 400, "dead_after_tokens": 5000})
    data = rows(5000)
    (sae,) = train(recipe, data[:4000], [0], validation=data[4000:])
    l0 = float((sae.encode(data[4000:]) != 0).sum(-1).float().mean())
    assert l0 == pytest.approx(4, rel=0.25)


def test_router_uses_every_expert() -> None:
    recipe = RECIPES["switch"].model_copy(update={"tokens": 64 * 400})
    data = rows(5000)
    (sae,) = train(recipe, data[:4000], [0], validation=data[4000:])
    used = sae.encode(data[4000:]).unflatten(-1, (4, -1)).gt(0).any(-1)
    assert (used.sum(-1) <= 1).all()
    assert used.float().mean(0).min() > 0.05


def test_decoder_bias_starts_at_the_training_mean() -> None:
    recipe = TOPK.model_copy(update={"tokens": 1, "batch_size": 1, "lr": 1e-12})
    (sae,) = train(recipe, rows(), [0], validation=rows(seed=2))
    torch.testing.assert_close(sae.b_dec, rows().mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.W_enc, sae.W_dec.T, rtol=1e-4, atol=1e-4)
    assert sae.drift_from_init == pytest.approx(1.0, abs=1e-4)


def test_epochs_are_permutations_and_can_be_entered_anywhere() -> None:
    recipe = TOPK.model_copy(update={"batch_size": 4})
    stream = bank.batches([0, 1], 10, recipe, 0)
    drawn = torch.cat([next(stream) for _ in range(10)], dim=1)
    assert torch.equal(drawn[:, :10].sort(-1).values, torch.arange(10).expand(2, 10))
    assert torch.equal(drawn[:, 30:].sort(-1).values, torch.arange(10).expand(2, 10))
    assert not torch.equal(drawn[0, :10], drawn[0, 10:20])
    assert not torch.equal(drawn[0], drawn[1])
    entered = bank.batches([0, 1], 10, recipe, 24)
    assert torch.equal(torch.cat([next(entered) for _ in range(4)], dim=1), drawn[:, 24:])
    shared = bank.batches([0, 1], 10, recipe.model_copy(update={"order_seed": 1}), 0)
    assert torch.equal(torch.cat([next(shared) for _ in range(10)], dim=1), drawn[1:])


def test_convergence_is_rest_over_the_last_tenth_after_a_fall() -> None:
    flat = [(t, 1.0 if t < 50 else 0.5) for t in range(1, 101)]
    assert trainer.converged(flat)
    assert not trainer.converged([(t, 1.0 - t / 200) for t in range(1, 101)])
    assert not trainer.converged([(100, 0.1)])
    assert not trainer.converged([*flat[:-1], (100, 0.52)])  # rising at the end
    assert not trainer.converged([(t, 0.5) for t in range(1, 101)])  # never learned


def test_measuring_in_chunks_changes_only_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = bank.Bank([TOPK], [0, 1], rows(), None, "cpu")
    measured.measure(rows(seed=2), None)
    monkeypatch.setattr(bank, "MEASURED_ROWS", 64)
    measured.measure(rows(seed=2), None)
    assert measured.curve[1] == pytest.approx(measured.curve[0], rel=1e-5)


def test_training_recovers_a_known_dictionary() -> None:
    """A positive control: sparse combinations of 24 known directions in 16 dimensions."""
    source = generator(0, "world")
    truth = torch.nn.functional.normalize(torch.randn(24, 16, generator=source), dim=-1)
    latents = (torch.rand(6000, 24, generator=source) < 0.06) * (0.5 + torch.rand(6000, 24, generator=source))
    data = latents @ truth
    recipe = SAERecipe(d_sae=24, k=3, tokens=200_000, batch_size=256, lr=5e-3, dead_after_tokens=5_000)
    (sae,) = train(recipe, data[:5000], [0], validation=data[5000:])
    cosines = (truth @ sae.decoder.T).max(1).values
    assert (cosines > 0.9).float().mean() > 0.8
    assert sae.drift_from_init < 0.7


def test_nothing_but_zeros_to_find_is_refused() -> None:
    x = rows(200)
    with pytest.raises(UserError, match="is zero"):
        train(TOPK, x, [0], validation=x, targets=x, validation_targets=0 * x)
