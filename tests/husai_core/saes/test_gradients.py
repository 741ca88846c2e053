"""The hand-written gradients against autograd of the documented losses, written densely."""

import pytest
import torch
from torch import Tensor

from husai_core.saes.architectures.base import StackedSAEs
from husai_core.saes.architectures.batchtopk import BatchTopK
from husai_core.saes.bank import Bank
from husai_core.seeding import generator
from tests.husai_core.saes.recipes import RECIPES, rows


def bank(name: str, transcoder: bool) -> Bank:
    """A bank in the middle of training: biases moved, every third latent dead."""
    made = Bank([RECIPES[name]], [3, 4], rows(), rows(d=10, seed=5) if transcoder else None, "cpu")
    (stack,) = made.stacks
    for number, (_, tensor) in enumerate(sorted(stack.small.items())):
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator(number))
    stack.silent[:, ::3] = stack.recipe.dead_after_tokens
    made.step = stack.step = 1
    return made


def kept(z: Tensor, k: int) -> Tensor:
    """z with all but the k largest of the last axis as 0, negative ones too."""
    return torch.where(z >= z.topk(k).values[..., -1:], z, 0.0).relu()


def loss(stack: StackedSAEs, x: Tensor, y: Tensor) -> Tensor:
    """The sum over members of the documented loss."""
    recipe, small = stack.recipe, stack.small
    z = x @ stack.encoder.transpose(1, 2) + small["b_enc"][:, None]
    extra: Tensor | float = 0.0
    match recipe.architecture:
        case "topk":
            f = kept(z, recipe.k)
        case "batchtopk" | "matryoshka":
            f = kept(z.flatten(1), recipe.k * z.shape[1]).view_as(z)
        case "switch":
            shares = torch.softmax((x - small["b_router"][:, None]) @ small["router"].transpose(1, 2), -1)
            used = torch.nn.functional.one_hot(shares.argmax(-1), recipe.experts).float()
            blocks = z.unflatten(-1, (recipe.experts, -1))
            f = (kept(blocks, recipe.k) * (used * shares)[..., None]).flatten(-2)
            extra = recipe.balance * recipe.experts * (used.mean(1) * shares.mean(1)).sum()
        case "relu":
            f = z.relu()
            extra = stack.penalty * f.sum(-1).mean(1).sum()
        case "jumprelu":
            f, extra = jump(stack, z)
        case "gated":
            pre = z - small["b_enc"][:, None]
            f = (pre * small["r_mag"].exp()[:, None] + small["b_mag"][:, None]).relu() * (z > 0)
            through_gate = z.relu() @ stack.decoder.detach() + stack.b_dec.detach()[:, None]
            extra = (stack.penalty * z.relu().sum(-1) + (through_gate - y).square().sum(-1)).mean(1).sum()
    levels = recipe.levels if recipe.architecture == "matryoshka" else [recipe.d_sae]
    errors = [y - f[..., :width] @ stack.decoder[:, :width] - stack.b_dec[:, None] for width in levels]
    total = sum(error.square().sum(-1).mean(1).sum() for error in errors) / len(levels) + extra
    return total if recipe.k is None else total + revival(stack, z, errors[-1])


def jump(stack: StackedSAEs, z: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and penalty, with thresholds differentiated through rectangles (Rajamanoharan et al., section 3)."""
    recipe, threshold = stack.recipe, stack.small["log_threshold"].exp()[:, None]
    rectangle = ((z - threshold).abs() < recipe.bandwidth / 2).float() / recipe.bandwidth
    step = (z > threshold).float()
    slope = (threshold - threshold.detach()) * rectangle.detach()
    l0 = (step - slope).sum(-1).mean(1)
    penalty = recipe.l0_coefficient * recipe.sparsity_weight(stack.step) * (l0 / recipe.target_l0 - 1) ** 2
    return z * step - threshold.detach() * slope, penalty.sum()


def revival(stack: StackedSAEs, z: Tensor, error: Tensor) -> Tensor:
    """The auxiliary loss."""
    dead = (stack.silent >= stack.recipe.dead_after_tokens)[:, None].expand_as(z)
    f = torch.where(dead, kept(z.masked_fill(~dead, -torch.inf), stack.recipe.k_aux), 0.0)
    return stack.recipe.aux_coefficient * (error.detach() - f @ stack.decoder).square().sum(-1).mean(1).sum()


def found(stack: StackedSAEs, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The hand-written gradients, all materialised."""
    gradients, _ = stack.gradients(x, y)
    whole = dict(gradients.small)
    for name in ("encoder", "decoder"):
        shape = stack.parameters[name].shape
        cuts = [slice(first, min(first + 30, shape[0] * shape[1])) for first in range(0, shape[0] * shape[1], 30)]
        blocks = [sum(outer.block(part) for outer in getattr(gradients, name)) for part in cuts]
        whole[name] = torch.cat(blocks).view(shape)
    return whole


@pytest.mark.parametrize("shared", [False, True], ids=["own order", "shared order"])
@pytest.mark.parametrize("transcoder", [False, True], ids=["sae", "transcoder"])
@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_those_of_the_documented_loss(name: str, transcoder: bool, shared: bool) -> None:
    made = bank(name, transcoder)
    (stack,) = made.stacks
    batch = torch.arange(64)[None] if shared else torch.arange(128).view(2, 64)
    x = made.input(made.rows[batch.flatten()]).view(*batch.shape, -1)
    y = x if made.targets is None else made.target(made.targets[batch.flatten()]).view(*batch.shape, -1)
    for parameter in stack.parameters.values():
        parameter.requires_grad_()
    wanted = torch.autograd.grad(loss(stack, x, y), list(stack.parameters.values()))
    for parameter in stack.parameters.values():
        parameter.requires_grad_(False)
    with torch.no_grad():
        given = found(stack, x, y)
    for parameter, expected in zip(stack.parameters, wanted, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(given[parameter], expected, rtol=1e-5, atol=1e-5 * scale, msg=parameter)


def test_batch_selection_is_exact_whatever_the_guess() -> None:
    made = bank("batchtopk", False)
    stack = made.stacks[0]
    assert isinstance(stack, BatchTopK)
    x = made.input(rows(64))[None]
    z = x @ stack.encoder.transpose(1, 2) + stack.small["b_enc"][:, None]
    wanted = z.flatten(1).topk(4 * 64).values.relu().sort(-1).values
    for guess in (0.0, 1.0, 50.0):
        stack.threshold.fill_(guess)
        found = stack.code(x).values.relu().view(2, -1).sort(-1).values
        torch.testing.assert_close(found, wanted)
