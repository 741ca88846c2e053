"""A bank: many SAEs of one width trained on one stream of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from husai_core.errors import UserError
from husai_core.saes.architectures import ARCHITECTURES
from husai_core.saes.architectures.base import StackedSAEs
from husai_core.saes.codes import recall
from husai_core.saes.half import HalfRun
from husai_core.saes.kernels import choose
from husai_core.saes.objective import Objective
from husai_core.saes.recipe import SAERecipe, together
from husai_core.seeding import generator

MEASURED_ROWS, READ_ROWS = 8192, 65_536
MEASURED_LATENTS = 1 << 25
"""Latents that are held at once when the error is measured."""
CHECKED_LATENTS = 1 << 22
"""Latents that are compared with a plain search when the choice of the largest is checked."""


class Rows(Protocol):
    """Rows [n, d] that may lie on disk: only those asked for are read."""

    @property
    def shape(self) -> Sequence[int]:
        """(n, d)."""

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Rows [m, d] in fp32."""


class Bank:
    """SAEs of one width, those of each recipe stacked, with the normalisation of their rows and their curves."""

    def __init__(
        self,
        recipes: Sequence[SAERecipe],
        seeds: Sequence[int],
        rows: Rows,
        targets: Rows | None,
        device: str,
        objective: Objective | None = None,
    ) -> None:
        """Every recipe is trained with every seed, through autograd where there is an objective.

        Raises:
            ValueError: recipes disagree in what a bank shares, or repeat each other, or the objective's reference
                dictionary does not fit.
        """
        together(recipes)
        self.recipe, self.device, self.step = recipes[0], device, 0
        self.rows, self.targets = rows, targets
        self.input = Scaler(rows, self.recipe.normalise)
        self.target = self.input if targets is None else Scaler(targets, self.recipe.normalise)
        d_in, d_out = rows.shape[1], (rows if targets is None else targets).shape[1]
        self.objective = None if objective is None else objective.prepared(d_out, device)
        kernels = choose(device)
        self.stacks = [
            ARCHITECTURES[recipe.architecture](recipe, seeds, d_in, d_out, targets is not None, kernels)
            for recipe in recipes
        ]
        for stack in self.stacks:
            stack.to(device)
        self.halves = [HalfRun(stack) for stack in self.stacks]
        for scaler in (self.input, self.target):
            scaler.mean = scaler.mean.to(device)
        self.curve: list[list[float]] = []
        self.recall: dict[str, float] = {}

    @property
    def tokens(self) -> int:
        """Rows seen by each member."""
        return self.step * self.recipe.batch_size

    def advance(self, batch: Tensor) -> None:
        """One optimiser step of every member on the rows at indices `batch` [seeds or 1, batch_size]."""
        x = self.input(self._read(self.rows, batch))
        y = x if self.targets is None else self.target(self._read(self.targets, batch))
        for stack, half in zip(self.stacks, self.halves, strict=True):
            half.advance(x, y, self.objective)
            stack.advance(x, y, self.objective)
        self.step += 1

    def _read(self, rows: Rows, batch: Tensor) -> Tensor:
        picked = rows.index_select(0, batch.flatten()) if isinstance(rows, Tensor) else rows[batch.flatten()]
        if self.device != "cpu" and picked.device.type == "cpu":
            picked = picked.pin_memory()  # so that the copy waits for no earlier work
        return picked.to(self.device, torch.float32, non_blocking=True).view(*batch.shape, -1)

    def measure(self, rows: Rows, targets: Rows | None) -> None:
        """Append the validation error of each member to the curve, and check how they choose latents.

        Raises:
            UserError: every value that should be predicted is zero.
        """
        size = max(1, min(MEASURED_ROWS, MEASURED_LATENTS // (len(self.stacks[0].seeds) * self.recipe.d_sae)))
        errors, squares = [torch.zeros(len(stack.seeds), device=self.device) for stack in self.stacks], 0.0
        for start in range(0, rows.shape[0], size):
            block = slice(start, start + size)
            x, y = rows[block].to(self.device), (rows if targets is None else targets)[block].to(self.device)
            squares += float(y.square().sum())
            x, y = self.input(x)[None], self.target(y)[None]
            for error, stack in zip(errors, self.stacks, strict=True):
                error += (stack.predict(x) - y).square().sum((1, 2))
        if not squares:
            raise UserError("every validation row or target is zero, so no error can be measured against them")
        self.recall = self._recall(x)
        scale = self.target.scale**2 / squares
        self.curve.append([float(self.tokens), *(torch.cat(errors) * scale).tolist()])

    def _recall(self, x: Tensor) -> dict[str, float]:
        """The lowest recall among the stacks that let their kernels choose the largest, on some normalised rows."""
        count = max(1, CHECKED_LATENTS // self.stacks[0].silent.numel())
        recalls = [
            recall(x[:, :count], stack.encoder, stack.small["b_enc"], stack.k, stack.kernels)
            for stack in self.stacks
            if stack.recipe.architecture == "topk" and stack.k is not None
        ]
        return {"selection_recall": min(recalls)} if recalls else {}

    def metrics(self) -> dict[str, float]:
        """The latest validation errors, the share of dead latents, and how far the chosen latents are the largest."""
        errors, after = self.curve[-1][1:], self.recipe.dead_after_tokens
        dead = torch.cat([stack.silent for stack in self.stacks]) >= after
        names = [self._name(stack, seed) for stack in self.stacks for seed in stack.seeds]
        members = {f"normalised_mse/{name}": error for name, error in zip(names, errors, strict=True)}
        shared = {"normalised_mse": sum(errors) / len(errors), "dead_fraction": float(dead.double().mean())}
        return shared | self.recall | members

    def _name(self, stack: StackedSAEs, seed: int) -> str:
        if len(self.stacks) == 1:
            return f"seed {seed}"
        return f"{stack.recipe.architecture} {self.stacks.index(stack)} seed {seed}"

    def save(self, directory: Path) -> None:
        """Write everything that the next step depends on."""
        tensors = {"curve": torch.tensor(self.curve, dtype=torch.float64), "step": torch.tensor(self.step)}
        for i, (stack, half) in enumerate(zip(self.stacks, self.halves, strict=True)):
            tensors |= {f"{i}.{name}": tensor for name, tensor in stack.state().items()}
            tensors |= {f"{i}.half.{name}": tensor for name, tensor in half.state().items()}
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, directory / "state.safetensors"
        )

    def load(self, directory: Path) -> None:
        """Go on from a state written by `save` with the same recipes, seeds and rows."""
        tensors = load_file(directory / "state.safetensors")
        self.curve, self.step = tensors["curve"].tolist(), int(tensors["step"])
        for i, (stack, half) in enumerate(zip(self.stacks, self.halves, strict=True)):
            stack.step, stack.columns = self.step, None
            for name, tensor in stack.state().items():
                tensor.copy_(tensors[f"{i}.{name}"])
            half.enter()
            for name, tensor in half.state().items():
                tensor.copy_(tensors[f"{i}.half.{name}"])


class Scaler:
    """Mean and scale of rows [n, d]: normalised rows have mean 0 and, if asked for, mean squared norm d."""

    def __init__(self, rows: Rows, scale: bool) -> None:
        n, d = rows.shape
        blocks = [slice(start, start + READ_ROWS) for start in range(0, n, READ_ROWS)]
        mean = sum((rows[block].double().sum(0) for block in blocks), torch.zeros(1, dtype=torch.float64)) / n
        squares = sum(float((rows[block].double() - mean).square().sum()) for block in blocks)
        self.mean, self.scale = mean.float(), (squares / n / d) ** 0.5 if scale and squares > 0 else 1.0

    def __call__(self, rows: Tensor) -> Tensor:
        """Normalised rows."""
        return (rows - self.mean).div_(self.scale)


def batches(seeds: Sequence[int], n: int, recipe: SAERecipe, start: int) -> Iterator[Tensor]:
    """Indices [seeds, batch_size] of consecutive batches from row `start` on; [1, batch_size] in a shared order.

    Every epoch draws a new permutation, from each seed or from the recipe's `order_seed`.
    """
    sources = seeds if recipe.order_seed is None else [recipe.order_seed]

    def permutation(epoch: int) -> Tensor:
        return torch.stack([torch.randperm(n, generator=generator(seed, "order", epoch)) for seed in sources])

    epoch, offset = divmod(start, n)
    stream = permutation(epoch)[:, offset:]
    while True:
        while stream.shape[1] < recipe.batch_size:
            epoch += 1
            stream = torch.cat([stream, permutation(epoch)], dim=1)
        yield stream[:, : recipe.batch_size]
        stream = stream[:, recipe.batch_size :]
