"""One optimiser step of each peer on a batch [b, d], as its own trainer takes it, without its logging."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], None]
STEPS = 10**6
"""Steps that schedules are laid out for: the learning rate is constant while anything is timed."""


def saelens(architecture: str, d: int, d_sae: int, k: int, batch: int) -> Step:
    """SAELens' trainer with its defaults."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    match architecture:
        case "topk":
            sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=d, d_sae=d_sae, k=k))
        case "batchtopk":
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=d, d_sae=d_sae, k=k))
        case "matryoshka":
            widths = [d_sae // 8, d_sae // 4, d_sae // 2]
            config = MatryoshkaBatchTopKTrainingSAEConfig(d_in=d, d_sae=d_sae, k=k, matryoshka_widths=widths)
            sae = MatryoshkaBatchTopKTrainingSAE(config)
        case _:
            raise ValueError(architecture)
    config = SAETrainerConfig(total_training_samples=STEPS * batch, train_batch_size_samples=batch, lr_end=3e-5)
    trainer = SAETrainer(config, sae, iter(()))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def dictionary_learning(d: int, d_sae: int, k: int) -> Step:
    """dictionary_learning's TopK trainer."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(STEPS, d, d_sae, k, layer=0, lm_name="none", device="cpu", seed=0)
    count = iter(range(STEPS))
    return lambda x: trainer.update(next(count), x)  # type: ignore[no-any-return]


def sparsify(d: int, d_sae: int, k: int) -> Step:
    """Sparsify's TopK coder with Adam: loss, dead latents, projection and norm as its trainer has them."""
    from sparsify.config import SparseCoderConfig
    from sparsify.sparse_coder import SparseCoder

    coder = SparseCoder(d, SparseCoderConfig(num_latents=d_sae, k=k))
    adam = torch.optim.Adam(coder.parameters(), lr=2e-4 / (d_sae / 2**14) ** 0.5)
    since_fired = torch.zeros(d_sae, dtype=torch.long)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x, dead_mask=None)
        out.fvu.backward()
        fired = torch.zeros(d_sae, dtype=torch.bool)
        fired[out.latent_indices.flatten()] = True
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
        since_fired.add_(len(x)).masked_fill_(fired, 0)

    return step
