"""Training a small language model on text, resumable at any step.

Every random choice is a function of the seed and the step, so a resumed run needs no generator state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from husai_core.data.text import Sequences
from husai_core.errors import UserError
from husai_core.identity import canonical
from husai_core.job import Job
from husai_core.models.bpe import END
from husai_core.models.text_recipe import TextRecipe
from husai_core.models.training import Keeper, Run
from husai_core.seeding import generator

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ARCHITECTURE = "GPTNeoXForCausalLM"
CHECKPOINT_SECONDS, PROGRESS_SECONDS = 60.0, 0.5
MEASURED = 128
"""Most sequences of each split that a point of the curve is measured on."""


def build(recipe: TextRecipe, d_vocab: int, seed: int, device: str) -> torch.nn.Module:
    """An untrained GPT-NeoX model; the global random state is left as it was."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=d_vocab,
        hidden_size=recipe.d_model,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        intermediate_size=recipe.d_mlp,
        max_position_embeddings=recipe.n_ctx,
        tie_word_embeddings=recipe.tie_embeddings,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights").initial_seed())
        model: torch.nn.Module = GPTNeoXForCausalLM(config)
    return model.to(device)


def optimiser(model: torch.nn.Module, recipe: TextRecipe) -> torch.optim.AdamW:
    """AdamW that decays the matrices, but neither biases nor norms."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def fit(run: Run, data: Sequences, split: Tensor, recipe: TextRecipe, seed: int, job: Job) -> None:
    """Train until the recipe ends; `split` uint8 [n] says which sequences are trained on."""
    train, validation = ((split == index).nonzero()[:, 0] for index in (0, 1))
    keeper, reported = Keeper(job, CHECKPOINT_SECONDS), 0.0
    while run.step < recipe.steps:
        _step(run, data, train, recipe, seed)
        if run.step % recipe.evaluate_every == 0 or run.step == recipe.steps:
            _evaluate(run, data, train[:MEASURED], validation[:MEASURED], job)
        if run.step == recipe.steps or time.monotonic() - reported > PROGRESS_SECONDS:
            job.progress(run.step, recipe.steps, "steps")
            reported = time.monotonic()
        keeper.offer(run)


@torch.no_grad()
def figures(model: torch.nn.Module, data: Sequences, rows: Tensor) -> tuple[float, float, Tensor]:
    """Mean cross-entropy (nats per token), accuracy, and the predicted tokens int64 [m], over some sequences."""
    loss, right, targets = 0.0, 0, list[Tensor]()
    for few in rows.split(32):  # type: ignore[no-untyped-call]
        logits, target = _predict(model, data, few)
        loss += float(F.cross_entropy(logits, target, reduction="sum"))
        right += int((logits.argmax(1) == target).sum())
        targets.append(target.cpu())
    seen = torch.cat(targets)
    return loss / len(seen), right / len(seen), seen


def save(directory: Path, model: torch.nn.Module, tokenizer: Tokenizer, facts: Mapping[str, Any]) -> None:
    """Write the model in the Hugging Face layout, and `facts` beside its shape in `cfg.json`."""
    from transformers import PreTrainedTokenizerFast

    model.cpu().save_pretrained(directory)  # type: ignore[operator]
    special: dict[str, Any] = {"bos_token": END, "eos_token": END, "pad_token": END}
    limit: int = model.config.max_position_embeddings  # type: ignore[union-attr, assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **special)  # type: ignore[no-untyped-call]
    fast.save_pretrained(directory)
    (directory / "cfg.json").write_bytes(canonical({"architecture": ARCHITECTURE, "leaks_label": False, **facts}))


def _predict(model: torch.nn.Module, data: Sequences, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [m, d_vocab] where the next token is text, and that token [m]."""
    device = next(model.parameters()).device
    tokens, is_text = data.tokens[rows].to(device), data.is_text[rows].to(device)
    hidden = model.gpt_neox(tokens[:, :-1]).last_hidden_state  # type: ignore[operator]
    wanted = is_text[:, 1:]
    return model.lm_head(hidden[wanted]), tokens[:, 1:][wanted]  # type: ignore[operator]


def _step(run: Run, data: Sequences, train: Tensor, recipe: TextRecipe, seed: int) -> None:
    size = min(recipe.batch_size, len(train))
    epoch, index = divmod(run.step, len(train) // size)
    order = torch.randperm(len(train), generator=generator(seed, "epoch", epoch))
    for group in run.optimiser.param_groups:
        group["lr"] = recipe.learning_rate(run.step)
    run.optimiser.zero_grad()
    logits, target = _predict(run.model, data, train[order[index * size : (index + 1) * size]])
    F.cross_entropy(logits, target).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.max_norm)
    run.optimiser.step()
    run.step += 1


def _evaluate(run: Run, data: Sequences, train: Tensor, validation: Tensor, job: Job) -> None:
    """Add a point to the curve."""
    values = dict[str, float]()
    for name, rows in (("train", train), ("validation", validation)):
        values[f"{name}_loss"], values[f"{name}_accuracy"], _ = figures(run.model, data, rows)
    if not all(map(math.isfinite, values.values())):
        raise UserError(f"training diverged at step {run.step}: choose a smaller learning rate")
    run.curve.append({"step": run.step, **values})
    job.metrics(run.step, values)
