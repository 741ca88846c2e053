"""What a training step does on an accelerator: the same, and without waiting for it."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from husai_core.saes import bank as module
from husai_core.saes.bank import Bank, batches
from husai_core.saes.kernels import Kernels
from husai_core.saes.kernels.torch_cpu import TorchCPU
from husai_core.saes.kernels.torch_cuda import TorchCUDA
from husai_core.saes.objective import Objective
from tests.husai_core.saes.recipes import RECIPES, rows

WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "bincount",
    "masked_select",
    "_unique2",
    "equal",
    "is_nonzero",
    "lift_fresh",
}
"""Operations whose result, or whose shape, the host must wait for; the last brings a number from the host."""
KERNELS: list[type[Kernels]] = [TorchCUDA]
if "TRITON_INTERPRET" in os.environ:
    from husai_core.saes.kernels.triton import Triton

    KERNELS.append(Triton)


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that an accelerator and its host would meet at."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        counted = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        waits = name in WAITING or by_mask or counted
        assert not waits, f"{name} waits"
        return func(*args, **(kwargs or {}))


def after(
    name: str,
    kernels: Kernels,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    objective: Objective | None = None,
) -> Bank:
    """A bank of two members after some steps, with latents that die and are listed."""
    recipe = RECIPES[name].model_copy(update={"dead_after_tokens": 64 * 64})
    monkeypatch.setattr(module, "choose", lambda _: kernels)
    trained = Bank([recipe], [0, 1], rows(), None, "cpu", objective)
    trained.stacks[0].silent[:, ::3] = recipe.dead_after_tokens
    stream = batches([0, 1], 700, recipe, 0)
    for _ in range(steps):
        trained.advance(next(stream))
    return trained


@pytest.mark.parametrize("objective", [None, Objective()], ids=["hand-written", "autograd"])
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_alike(
    name: str, kernels: type[Kernels], objective: Objective | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 3 if kernels is not TorchCUDA else 10
    expected = after(name, TorchCPU(), monkeypatch, steps).stacks[0].state()
    state = after(name, kernels(), monkeypatch, steps, objective).stacks[0].state()
    for key, tensor in expected.items():
        torch.testing.assert_close(state[key], tensor, rtol=1e-4, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Except where dead latents are listed again, every fourth step here, or start anew."""
    monkeypatch.setitem(RECIPES, name, RECIPES[name].model_copy(update={"resample_tokens": None}))
    trained = after(name, TorchCUDA(), monkeypatch, 1)
    batch = torch.arange(128).view(2, 64)
    with NoWaiting():
        for _ in range(3):
            trained.advance(batch)
    if RECIPES[name].aux_coefficient and trained.stacks[0].columns is not None:
        assert len(trained.stacks[0].columns) > 0
        with NoWaiting(), pytest.raises(AssertionError, match="nonzero waits"):
            trained.advance(batch)
