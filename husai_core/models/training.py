"""Training a modular-addition network, resumable at any step, and the test that it does not copy the answer.

Every random choice is a function of the seed and the step, so a resumed run needs no generator state.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformer_lens import HookedTransformer

from husai_core.data.modular import POSITIONS, Pairs, randomised
from husai_core.errors import UserError
from husai_core.identity import canonical
from husai_core.job import Job
from husai_core.models import fast_forward, modular
from husai_core.seeding import generator

CHECKPOINT_SECONDS = 10.0
LEAK_ROWS = 4096
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
Read = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train: AdamW with a linear warm-up, evaluated every `evaluate_every` steps.

    Training ends after `steps`, or at the third evaluation in a row with at least `stop_accuracy` on the validation
    split.
    """

    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    betas: tuple[float, float]
    warmup_steps: int
    evaluate_every: int
    stop_accuracy: float
    seed: int


@dataclass
class Run:
    """A training run in progress; `curve` has one point per evaluation."""

    model: torch.nn.Module
    optimiser: torch.optim.AdamW
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    def stopped(self, accuracy: float) -> bool:
        """Whether the last three evaluations all reached `accuracy` on the validation split."""
        last = self.curve[-3:]
        return len(last) == 3 and all(point["validation_accuracy"] >= accuracy for point in last)


class Keeper:
    """Publishes a checkpoint every so many seconds, and once when the worker is about to stop."""

    def __init__(self, job: Job, seconds: float) -> None:
        self.job, self.seconds, self.saved, self.drained = job, seconds, time.monotonic(), False

    def offer(self, run: Run) -> None:
        """Publish one if it is time."""
        if time.monotonic() - self.saved > self.seconds or (self.job.draining and not self.drained):
            self.saved, self.drained = time.monotonic(), self.job.draining
            save_state(run, self.job)


def reader(model: HookedTransformer, cfg: Mapping[str, Any], p: int, position: str) -> Read:
    """A differentiable function from tokens [n, 7] to logits [n, vocabulary] at `position`."""
    if fast_forward.applies(cfg, position):
        weights = dict(model.named_parameters())
        return lambda tokens: fast_forward.logits(weights, p, tokens[:, 1], tokens[:, 3])
    at = POSITIONS[position]
    return lambda tokens: model(tokens[:, : at + 1])[:, at]


def fit(run: Run, read: Read, data: Pairs, split: Tensor, recipe: Recipe, job: Job) -> None:
    """Train until the recipe ends; `data` and `split` lie on the model's device."""
    train, validation = ((split == index).nonzero()[:, 0] for index in (0, 1))
    keeper = Keeper(job, CHECKPOINT_SECONDS)
    while run.step < recipe.steps and not run.stopped(recipe.stop_accuracy):
        _step(run, read, data, train, recipe)
        if run.step % recipe.evaluate_every == 0 or run.step == recipe.steps:
            _evaluate(run, read, data, train[: len(validation)], validation, job)
            job.progress(run.step, recipe.steps, "steps")
        keeper.offer(run)


def figures(read: Read, data: Pairs, rows: Tensor) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy on some rows of the data."""
    with torch.no_grad():
        logits = torch.cat([read(data.tokens[few]) for few in rows.split(4096)])  # type: ignore[no-untyped-call]
    label = data.label[rows]
    return float(F.cross_entropy(logits, label)), float((logits.argmax(1) == label).float().mean())


def leak_test(model: HookedTransformer, data: Pairs, position: str, seed: int) -> dict[str, float | bool]:
    """Accuracy on whole sequences whose operands, or whose answer token, are drawn at random.

    A network that adds is at chance without its operands and does not depend on the answer token. `passed`: at most
    twice chance without operands, and at most 0.01 of change without the answer token.
    """
    rows = torch.randint(len(data.label), (LEAK_ROWS,), generator=generator(seed, "leak"))
    sample = Pairs(data.tokens[rows], data.label[rows], data.p)

    def accuracy(shown: Pairs) -> float:
        answers = modular.logits(model, shown.tokens, position).argmax(1)
        return float((answers == shown.label).float().mean())

    plain, chance = accuracy(sample), 1 / data.p
    operands, answer = accuracy(randomised(sample, (1, 3), seed)), accuracy(randomised(sample, (5,), seed))
    return {
        "accuracy": plain,
        "operand_randomised_accuracy": operands,
        "answer_randomised_accuracy": answer,
        "chance": chance,
        "passed": operands <= 2 * chance and abs(answer - plain) <= 0.01,
    }


def start(model: HookedTransformer, recipe: Recipe, resume: Path | None) -> Run:
    """A fresh run, or the one whose checkpoint lies in `resume`."""
    settings: dict[str, Any] = {"lr": recipe.lr, "betas": recipe.betas, "weight_decay": recipe.weight_decay}
    return restored(Run(model, torch.optim.AdamW(model.parameters(), fused=True, **settings)), resume)


def restored(run: Run, resume: Path | None) -> Run:
    """A fresh run as it is, or moved to where the checkpoint in `resume` was taken."""
    if resume is None:
        return run
    tensors, facts = load_file(resume / "state.safetensors"), json.loads((resume / "state.json").read_bytes())
    run.step, run.curve = facts["step"], facts["curve"]
    for name, parameter in run.model.named_parameters():
        parameter.data.copy_(tensors[name])
        run.optimiser.state[parameter] = {m: tensors[f"{name}.{m}"].to(parameter.device) for m in MOMENTS}
    return run


def save_state(run: Run, job: Job) -> None:
    """Publish a checkpoint that `start` or `restored` can resume."""
    directory, tensors = job.checkpoint(), {}
    for name, parameter in run.model.named_parameters():
        state = run.optimiser.state[parameter]
        tensors[name] = parameter.detach().cpu().contiguous()
        tensors |= {f"{name}.{m}": state[m].cpu().contiguous() for m in MOMENTS}
    save_file(tensors, directory / "state.safetensors")
    (directory / "state.json").write_bytes(canonical({"step": run.step, "curve": run.curve}))
    job.commit_checkpoint(directory)


def _step(run: Run, read: Read, data: Pairs, train: Tensor, recipe: Recipe) -> None:
    size = min(recipe.batch_size, len(train))
    epoch, index = divmod(run.step, len(train) // size)
    order = torch.randperm(len(train), generator=generator(recipe.seed, "epoch", epoch))
    rows = train[order[index * size : (index + 1) * size].to(train.device)]
    for group in run.optimiser.param_groups:
        group["lr"] = recipe.lr * min(1.0, (run.step + 1) / recipe.warmup_steps)
    run.optimiser.zero_grad()
    F.cross_entropy(read(data.tokens[rows]), data.label[rows]).backward()  # type: ignore[no-untyped-call]
    run.optimiser.step()
    run.step += 1


def _evaluate(run: Run, read: Read, data: Pairs, train: Tensor, validation: Tensor, job: Job) -> None:
    """Add a point to the curve; the training figures are of as many rows as the validation split has."""
    train_loss, train_accuracy = figures(read, data, train)
    loss, accuracy = figures(read, data, validation)
    if not torch.isfinite(torch.tensor([train_loss, loss])).all():
        raise UserError(f"training diverged at step {run.step}: choose a smaller learning rate")
    values = {"train_loss": train_loss, "train_accuracy": train_accuracy}
    values |= {"validation_loss": loss, "validation_accuracy": accuracy}
    run.curve.append({"step": run.step, **values})
    job.metrics(run.step, values)
