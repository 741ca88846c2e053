"""Training of SAEs and transcoders: all members of a bank in one pass over the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from husai_core.saes.architectures.base import StackedSAEs
from husai_core.saes.bank import Bank, Rows, batches
from husai_core.saes.objective import Objective
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.sae import SAE

POINTS = 50
Save = Callable[[Path], None]


@dataclass(kw_only=True, repr=False)
class TrainedSAE(SAE):
    """An SAE fresh from training: fp32 weights on the CPU, for raw activations."""

    recipe: SAERecipe
    seed: int
    drift_from_init: float
    """Mean |cosine| between the final and the initial decoder rows: 1 where training moved nothing."""
    converged: bool
    """Validation error changed by less than 1 % over the last 10 % of the tokens, after a fall (see `converged`)."""
    curve: list[tuple[int, float]]
    """(tokens, validation sum of squared errors / sum of squares)."""
    objective: str | None = None
    """The name of the objective, where one was given."""
    half: SAE | None = None
    """The copy that came to rest at half the tokens; None where `recipe.why_no_half` says why."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint keeps about the training."""
        outcome = {"drift_from_init": self.drift_from_init, "converged": self.converged}
        return _described(self.recipe, self.seed, self.transcoder, self.objective) | outcome


def _described(recipe: SAERecipe, seed: int, transcoder: bool, objective: str | None) -> dict[str, Any]:
    facts = {"recipe": recipe.model_dump(mode="json"), "seed": seed, "transcoder": transcoder}
    return facts if objective is None else facts | {"objective": objective}


@torch.no_grad()
def train(
    recipe: SAERecipe | Sequence[SAERecipe],
    rows: Rows,
    seeds: Sequence[int],
    *,
    validation: Rows,
    targets: Rows | None = None,
    validation_targets: Rows | None = None,
    device: str = "cpu",
    objective: Objective | None = None,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    on_state: Callable[[Save], None] | None = None,
    state: Path | None = None,
) -> list[TrainedSAE]:
    """Train one SAE per recipe and seed on `rows` [n, d_in], or transcoders from `rows` to `targets` [n, d_out].

    A seed fixes its member's initial weights and (unless the recipe has an `order_seed`) order of rows, whatever the
    other members are. Members come recipe by recipe. Each has its `half` where its recipe allows for one.

    Args:
        validation: rows [m, d_in] on which the curve and `converged` are measured; never trained on.
        objective: trains through autograd, with a further term of the loss or a fixed reference dictionary, where the
            fast gradients of the documented loss do not suffice.
        on_step: called after every step with (rows seen by each member, rows in all, figures), where the figures are
            empty but at the points of the curve.
        on_state: called after every step with a function that writes a resumable state into a directory.
        state: directory with such a state, to go on from with the same objective; on the CPU the outcome is that of an
            uninterrupted run.

    Raises:
        ValueError: seeds or recipes repeat each other, the recipes do not fit into one bank, or the objective's
            reference dictionary does not fit the rows.
    """
    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds must be distinct")
    recipes = [recipe] if isinstance(recipe, SAERecipe) else recipe
    steps, size = recipes[0].steps, recipes[0].batch_size
    bank = Bank(recipes, seeds, rows, targets, device, objective)
    if state is not None:
        bank.load(state)
    every = max(1, steps // POINTS)
    stream = batches(seeds, rows.shape[0], recipes[0], bank.tokens)
    while bank.step < steps:
        bank.advance(next(stream))
        point = bank.step % every == 0 or bank.step == steps
        if point:
            bank.measure(validation, validation_targets)
        if on_step:
            on_step(bank.tokens, steps * size, bank.metrics() if point else {})
        if on_state:
            on_state(bank.save)
    return members(bank)


def converged(curve: Sequence[tuple[int, float]]) -> bool:
    """True when the error came to rest below where it started.

    Over the last 10 % of the tokens it changed by less than 1 %, up or down, and it is at least 1 % below the first
    point of the curve: an SAE that learned nothing has not converged. It says that the run came to rest under its own
    schedule, not that more tokens would bring nothing: a learning rate that decays brings any run to rest.
    """
    end, last = curve[-1]
    before = [error for tokens, error in curve if tokens <= 0.9 * end]
    return bool(before) and abs(last - before[-1]) < 0.01 * before[-1] and last <= 0.99 * curve[0][1]


def members(bank: Bank) -> list[TrainedSAE]:
    """All members with normalisation folded into their weights."""
    trained: list[TrainedSAE] = []
    for stack in bank.stacks:
        drift = (stack.decoder * stack.initial()[1].to(stack.decoder.device)).sum(-1).abs().mean(-1).tolist()
        for i in range(len(stack.seeds)):
            curve = [(int(point[0]), point[1 + len(trained)]) for point in bank.curve]
            trained.append(_member(bank, stack, i, drift[i], curve))
    return trained


def _member(bank: Bank, stack: StackedSAEs, i: int, drift: float, curve: list[tuple[int, float]]) -> TrainedSAE:
    return TrainedSAE(
        **_weights(bank, stack, i),
        recipe=stack.recipe,
        seed=stack.seeds[i],
        drift_from_init=drift,
        converged=converged(curve),
        curve=curve,
        objective=None if bank.objective is None else bank.objective.name,
        half=_half(bank, stack, i),
    )


def _half(bank: Bank, stack: StackedSAEs, i: int) -> SAE | None:
    copy = bank.halves[bank.stacks.index(stack)].copy
    if copy is None:
        return None
    objective = None if bank.objective is None else bank.objective.name
    facts = _described(copy.recipe, copy.seeds[i], copy.transcoder, objective)
    return SAE(**_weights(bank, copy, i), provenance=facts)


def _weights(bank: Bank, stack: StackedSAEs, i: int) -> dict[str, Any]:
    """What an SAE is for raw rows, from one of a stack for normalised rows."""
    scale, weights = bank.target.scale, stack.encoder[i].T
    if stack.transcoder:
        weights = weights * (scale / bank.input.scale)
        shift = -bank.input.mean @ weights
    else:
        shift = stack.b_dec[i] @ weights * scale
    biases = {"b_gate" if stack.recipe.architecture == "gated" else "b_enc": stack.small["b_enc"][i] * scale + shift}
    extra: dict[str, Any] = biases | stack.export(i)
    if "threshold" in extra:
        extra["threshold"] = extra["threshold"] * scale
    if "b_mag" in extra:
        extra["b_mag"] = extra["b_mag"] * scale + shift * extra["r_mag"].exp()
    if "W_router" in extra:
        extra["W_router"] = extra["W_router"] / bank.input.scale
        extra["b_router"] = bank.input.mean + extra["b_router"] * bank.input.scale
    fields: dict[str, Any] = {n: _out(value) if isinstance(value, Tensor) else value for n, value in extra.items()}
    return {
        "W_enc": _out(weights),
        "W_dec": _out(stack.decoder[i]),
        "b_dec": _out(bank.target.mean + stack.b_dec[i] * scale),
        "apply_b_dec_to_input": not stack.transcoder,
        "transcoder": stack.transcoder,
        **fields,
    }


def _out(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()
