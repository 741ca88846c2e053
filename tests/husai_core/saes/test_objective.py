"""Training through autograd: as the fast gradients train, with further terms, and with a fixed reference dictionary."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from husai_core.errors import UserError
from husai_core.saes import checkpoint, losses
from husai_core.saes.evaluate import evaluate
from husai_core.saes.objective import Forward, Objective
from husai_core.saes.trainer import Save, TrainedSAE, train
from tests.husai_core.saes.recipes import RECIPES, TOPK, rows

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold", "b_gate", "r_mag", "b_mag", "W_router", "b_router")
HELD = rows(seed=2)


def drawn_towards(reference: Tensor, weight: float) -> Objective:
    """A consistency penalty."""

    def term(forward: Forward) -> Tensor:
        assert forward.reference is not None
        return weight * losses.consistency(forward.parameters["decoder"], forward.reference)

    return Objective("consistency", term, reference)


@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
@pytest.mark.parametrize("name", RECIPES)
def test_autograd_trains_as_the_fast_gradients_do(name: str, transcoder: bool) -> None:
    """Weights differ by less than 1e-4 of their largest after 30 steps, in which dead latents are revived."""
    recipe = RECIPES[name]
    y, held_y = (rows(d=10, seed=5), rows(d=10, seed=6)) if transcoder else (None, None)
    fast, by_autograd = (
        train(recipe, rows(), [0, 1], validation=HELD, targets=y, validation_targets=held_y, objective=objective)
        for objective in (None, Objective())
    )
    for member, same in zip(fast, by_autograd, strict=True):
        assert (member.objective, same.objective) == (None, "documented")
        for key in WEIGHTS:
            expected, weights = getattr(member, key), getattr(same, key)
            if expected is not None:
                tolerance = 1e-4 * float(expected.abs().max())
                torch.testing.assert_close(weights, expected, rtol=0, atol=tolerance, msg=key)


def overlap(sae: TrainedSAE, reference: TrainedSAE) -> float:
    """Mean over latents of the largest cosine with a latent of the reference."""
    return 1 - float(losses.consistency(sae.W_dec[None], reference.decoder))


@pytest.mark.parametrize("name", ["topk", "sparse topk", "matryoshka", "relu"])
def test_a_consistency_term_raises_the_overlap_with_a_fixed_reference(name: str) -> None:
    """And costs little of the reconstruction; the reference has another scale and stays as it was."""
    recipe = RECIPES[name].model_copy(update={"tokens": 64 * 300, "dead_after_tokens": 5000})
    data, held = rows(4500)[:4000], rows(4500)[4000:]
    (reference,) = train(recipe, data, [0], validation=held)
    dictionary = 7 * reference.W_dec
    before = dictionary.clone()
    alone = train(recipe, data, [1, 2], validation=held)
    drawn = train(recipe, data, [1, 2], validation=held, objective=drawn_towards(dictionary, 3.0))
    assert torch.equal(dictionary, before)
    for sae, plain in zip(drawn, alone, strict=True):
        assert overlap(sae, reference) > overlap(plain, reference) + 0.05
        torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(sae.d_sae))
        errors = [evaluate(each, held).normalised_mse for each in (sae, plain)]
        assert errors[0] < 1.5 * errors[1]


def test_a_term_may_compare_members_and_read_latents_and_rows() -> None:
    """Here the seeds of a bank are drawn towards each other, and latents are paid for."""
    seen = list[tuple[torch.Size, ...]]()

    def term(forward: Forward) -> Tensor:
        decoder, latents = forward.parameters["decoder"], forward.latents.dense()
        seen.append((latents.shape, forward.batch.x.shape, forward.loss.shape))
        between = losses.consistency(decoder[:1], decoder[1].detach()) + losses.consistency(
            decoder[1:], decoder[0].detach()
        )
        return 2 * between.sum() + 1e-3 * latents.sum(-1).mean()

    recipe = TOPK.model_copy(update={"tokens": 64 * 200})
    alone = train(recipe, rows(), [0, 1], validation=HELD)
    pair = train(recipe, rows(), [0, 1], validation=HELD, objective=Objective("pair", term))
    assert overlap(pair[0], pair[1]) > overlap(alone[0], alone[1]) + 0.05
    assert set(seen) == {((2, 64, 48), (2, 64, 16), (2,))}


def test_an_interrupted_training_goes_on_with_its_objective(tmp_path: Path) -> None:
    objective = drawn_towards(torch.eye(16), 0.5)
    uninterrupted = train(TOPK, rows(), [0, 1], validation=HELD, objective=objective)

    def stop_halfway(save: Save) -> None:
        if not tmp_path.joinpath("state.safetensors").exists():
            save(tmp_path)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(TOPK, rows(), [0, 1], validation=HELD, objective=objective, on_state=stop_halfway)
    resumed = train(TOPK, rows(), [0, 1], validation=HELD, objective=objective, state=tmp_path)
    assert all(torch.equal(a.W_dec, b.W_dec) for a, b in zip(uninterrupted, resumed, strict=True))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.ones(5, 15), r"shape \(5, 15\), but rows of width 16"),
        (torch.ones(16), r"shape \(16,\)"),
        (torch.zeros(5, 16), "zero or not finite"),
        (torch.full((5, 16), torch.nan), "zero or not finite"),
    ],
)
def test_a_reference_that_fits_nothing_is_refused(reference: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(TOPK, rows(), [0], validation=HELD, objective=drawn_towards(reference, 1.0))


def test_a_term_of_another_shape_is_refused() -> None:
    objective = Objective("wide", lambda forward: forward.latents.dense())
    with pytest.raises(ValueError, match=r"term of wide has shape \(1, 64, 48\), not \(\) or \(1,\)"):
        train(TOPK, rows(), [0], validation=HELD, objective=objective)


@pytest.mark.parametrize("term", [lambda _: 0.5, lambda forward: forward.loss.detach()])
def test_a_term_without_a_gradient_is_refused(term: Any) -> None:
    with pytest.raises(ValueError, match="term of constant has no gradient"):
        train(TOPK, rows(), [0], validation=HELD, objective=Objective("constant", term))


def test_a_checkpoint_names_its_objective_and_is_not_trained_again_without_it(tmp_path: Path) -> None:
    recipe = TOPK.model_copy(update={"tokens": 64})
    (sae,) = train(recipe, rows(), [0], validation=HELD, objective=drawn_towards(torch.eye(16), 1.0))
    checkpoint.save(sae, tmp_path, sae.describe())
    loaded = checkpoint.load(tmp_path)
    assert loaded.provenance["objective"] == "consistency"
    with pytest.raises(UserError, match="trained with the objective 'consistency'"):
        checkpoint.recipe(loaded)
    (usual,) = train(recipe, rows(), [0], validation=HELD)
    assert "objective" not in usual.describe()
