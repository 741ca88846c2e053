"""The hand-written gradients, and those through the kernels, against autograd of the documented losses."""

import pytest
import torch
from torch import Tensor

from husai_core.saes.architectures.base import Gradients, StackedSAEs
from husai_core.saes.architectures.batchtopk import BatchTopK
from husai_core.saes.bank import Bank
from husai_core.saes.losses import LOSSES, Batch, revival
from husai_core.saes.objective import Objective
from husai_core.seeding import generator
from tests.husai_core.saes.recipes import RECIPES, rows

REVIVED = [name for name, recipe in RECIPES.items() if recipe.k is not None]


def bank(name: str, transcoder: bool) -> Bank:
    """A bank in the middle of training: biases are not zero, every third latent is dead."""
    trained = Bank([RECIPES[name]], [3, 4], rows(), rows(d=10, seed=5) if transcoder else None, "cpu")
    (stack,) = trained.stacks
    for number, (_, tensor) in enumerate(sorted(stack.small.items())):
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator(number))
    stack.silent[:, ::3] = stack.recipe.dead_after_tokens
    stack.listed[::3] = True
    trained.step = stack.step = 1
    return trained


def a_batch(trained: Bank, shared: bool) -> tuple[Tensor, Tensor]:
    """Normalised rows and targets, the same for both members or not."""
    batch = torch.arange(64)[None] if shared else torch.arange(128).view(2, 64)
    x = trained.input(trained.rows[batch.flatten()]).view(*batch.shape, -1)
    if trained.targets is None:
        return x, x
    return x, trained.target(trained.targets[batch.flatten()]).view(*batch.shape, -1)


def documented(stack: StackedSAEs, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Autograd of the documented loss, computed densely by operations of torch alone."""
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in stack.parameters.items()}
    batch = Batch(x, y, stack.dead, stack.recipe.sparsity_weight(stack.step), stack.k)
    loss, _ = LOSSES[stack.recipe.architecture](parameters, batch, stack.recipe, None)
    return dict(zip(parameters, torch.autograd.grad(loss.sum(), list(parameters.values())), strict=True))


def whole(gradients: Gradients, stack: StackedSAEs) -> dict[str, Tensor]:
    """All gradients as tensors; the dictionaries' come in blocks that cross members."""
    tensors = dict(gradients.small)
    for name in ("encoder", "decoder"):
        shape = stack.parameters[name].shape
        cuts = [slice(first, min(first + 30, shape[0] * shape[1])) for first in range(0, shape[0] * shape[1], 30)]
        blocks = [sum(outer.block(cut) for outer in getattr(gradients, name)) for cut in cuts]
        tensors[name] = torch.cat(blocks).view(shape)
    return tensors


@pytest.mark.parametrize("by_autograd", [False, True], ids=["hand-written", "autograd through the kernels"])
@pytest.mark.parametrize("shared", [False, True], ids=["separate orders", "shared order"])
@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_those_of_the_documented_loss(
    name: str, transcoder: bool, shared: bool, by_autograd: bool
) -> None:
    trained = bank(name, transcoder)
    (stack,) = trained.stacks
    x, y = a_batch(trained, shared)
    expected = documented(stack, x, y)
    with torch.no_grad():
        gradients, fired = stack.differentiate(x, y, Objective()) if by_autograd else stack.gradients(x, y)
        again = bank(name, transcoder).stacks[0].gradients(x, y)
    assert torch.equal(fired, again[1].to(fired.dtype))
    computed = whole(gradients, stack)
    assert computed.keys() == expected.keys()
    for parameter, wanted in expected.items():
        scale = float(wanted.abs().max())
        assert scale > 0
        torch.testing.assert_close(computed[parameter], wanted, rtol=1e-5, atol=1e-5 * scale, msg=parameter)


@pytest.mark.parametrize("name", REVIVED)
def test_the_auxiliary_loss_pulls_dead_latents_towards_what_is_left_over(name: str) -> None:
    """A step down its gradient reconstructs the remaining error better; with the wrong sign it would be worse."""
    (stack,) = bank(name, False).stacks
    x = a_batch(bank(name, False), True)[0].expand(2, -1, -1)
    error = -x
    parameters = {key: tensor.clone().requires_grad_() for key, tensor in stack.parameters.items()}
    before = revival(parameters, Batch(x, x, stack.dead), error, stack.recipe)
    to_decoder, to_encoder = torch.autograd.grad(before.sum(), [parameters["decoder"], parameters["encoder"]])
    dead = stack.dead[..., None].expand_as(to_decoder)
    assert to_decoder[~dead].count_nonzero() == to_encoder[~dead].count_nonzero() == 0
    assert to_decoder[dead].count_nonzero() > 0
    changed = {"decoder": stack.decoder - 0.1 * to_decoder, "encoder": stack.encoder - 0.1 * to_encoder}
    after = revival({**stack.parameters, **changed}, Batch(x, x, stack.dead), error, stack.recipe)
    assert (after < before).all()
    nothing = stack.recipe.aux_coefficient * error.square().sum(-1).mean(1)
    assert (before < nothing).all()


def test_batch_selection_is_exact_whatever_the_guess() -> None:
    trained = bank("batchtopk", False)
    stack = trained.stacks[0]
    assert isinstance(stack, BatchTopK)
    x = trained.input(rows(64))[None]
    z = x @ stack.encoder.transpose(1, 2) + stack.small["b_enc"][:, None]
    expected = z.flatten(1).topk(4 * 64).values.relu().sort(-1).values
    for guess in (0.0, 1.0, 50.0):
        stack.threshold.fill_(guess)
        selected = stack.code(x).values.relu().view(2, -1).sort(-1).values
        torch.testing.assert_close(selected, expected)
