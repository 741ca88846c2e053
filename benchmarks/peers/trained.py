"""SAEs that the peers' own trainers leave behind, on activations of the built-in language model.

    python benchmarks/peers/trained.py DIRECTORY [--tokens N]

runs where `requirements.txt` is installed. It writes `saelens/seed0` to `seed2` (TopK), `sparsify/seed0` (TopK) and
`dictionary_learning/seed0` to `seed2` (BatchTopK), each folder as its trainer left it, for `husai check`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
MODEL, TEXT = ROOT / "husai_core/assets/classics-2m", ROOT / "husai_core/assets/classics-held-out"
HOOK, LAYER, CONTEXT, D, D_SAE, K, BATCH, RATE = "blocks.1.hook_resid_post", 1, 128, 128, 256, 8, 1024, 4e-3
SEEDS = (0, 1, 2)


def model() -> tuple[Any, Any]:
    """The built-in model as transformers reads it, and its tokeniser."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="eager", dtype=torch.float32)
    return loaded.eval(), AutoTokenizer.from_pretrained(MODEL)


def sequences(tokenizer: Any) -> Tensor:
    """The held-out books as sequences [n, CONTEXT] that begin with the beginning-of-sequence token."""
    bodies = []
    for path in sorted(TEXT.glob("*.md")):
        ids = torch.tensor(tokenizer.encode(path.read_text(), add_special_tokens=False, verbose=False))
        n = len(ids) // (CONTEXT - 1)
        bodies.append(ids[: n * (CONTEXT - 1)].view(n, CONTEXT - 1))
    text = torch.cat(bodies)
    return torch.cat([torch.full((len(text), 1), tokenizer.bos_token_id), text], 1)


def saelens(folder: Path, seed: int, tokens: int) -> None:
    """SAELens' runner, as its users start it."""
    from datasets import Dataset
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig
    from transformer_lens.model_bridge import TransformerBridge

    loaded, tokenizer = model()
    bridge = TransformerBridge.boot_transformers(str(MODEL), hf_model=loaded, tokenizer=tokenizer, device="cpu")
    dataset = Dataset.from_dict({"text": [path.read_text() for path in sorted(TEXT.glob("*.md"))]})
    config = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=K), model_name="classics-2m", hook_name=HOOK,
        dataset_path="classics-held-out", is_dataset_tokenized=False, streaming=False, context_size=CONTEXT,
        training_tokens=tokens, train_batch_size_tokens=BATCH, store_batch_size_prompts=16, n_batches_in_buffer=32,
        lr=RATE, lr_warm_up_steps=50, lr_decay_steps=tokens // BATCH // 5, seed=seed, device="cpu",
        logger=LoggingConfig(log_to_wandb=False), n_checkpoints=0, checkpoint_path=str(folder / "checkpoints"),
        output_path=str(folder / "output"),
    )  # fmt: skip
    LanguageModelSAETrainingRunner(config, override_dataset=dataset, override_model=bridge).run()
    (folder / "output").rename(folder.parent / "moved")
    shutil.rmtree(folder)
    (folder.parent / "moved").rename(folder)


def sparsify(folder: Path, seed: int, tokens: int) -> None:
    """Sparsify's trainer."""
    from datasets import Dataset
    from sparsify import SaeConfig, TrainConfig, Trainer

    loaded, tokenizer = model()
    text = sequences(tokenizer)
    repeated = text.repeat(tokens // text.numel() + 1, 1)[: tokens // CONTEXT]
    generator = torch.Generator().manual_seed(seed)
    dataset = Dataset.from_dict({"input_ids": repeated[torch.randperm(len(repeated), generator=generator)].tolist()})
    config = TrainConfig(
        SaeConfig(num_latents=D_SAE, k=K), batch_size=BATCH // CONTEXT, layers=[LAYER], optimizer="adam", lr=RATE,
        lr_warmup_steps=50, init_seeds=[seed], save_every=10**9, log_to_wandb=False, save_dir=str(folder.parent),
        run_name=folder.name,
    )  # fmt: skip
    Trainer(config, dataset.with_format("torch"), loaded).fit()


def dictionary_learning(folder: Path, seed: int, tokens: int) -> None:
    """dictionary_learning's training loop with its BatchTopK trainer."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE, BatchTopKTrainer
    from dictionary_learning.training import trainSAE

    loaded, tokenizer = model()
    text, steps = sequences(tokenizer), tokens // BATCH
    with torch.no_grad():
        states = [loaded(block, output_hidden_states=True).hidden_states[LAYER + 1] for block in text.split(64)]
    rows = torch.cat(states)[:, 1:].reshape(-1, D)

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield rows[torch.randint(len(rows), (BATCH,), generator=generator)]

    trainer = {
        "trainer": BatchTopKTrainer, "dict_class": BatchTopKSAE, "activation_dim": D, "dict_size": D_SAE, "k": K,
        "layer": LAYER, "lm_name": "classics-2m", "submodule_name": f"resid_post_layer_{LAYER}", "lr": RATE,
        "steps": steps, "warmup_steps": 50, "decay_start": int(0.8 * steps), "seed": seed, "device": "cpu",
        "wandb_name": "none",
    }  # fmt: skip
    run = {"buffer": {"ctx_len": CONTEXT}}
    trainSAE(batches(), [trainer], steps=steps, save_dir=str(folder), device="cpu", run_cfg=run)


TRAINERS = {
    "saelens": (saelens, SEEDS),
    "sparsify": (sparsify, SEEDS[:1]),
    "dictionary_learning": (dictionary_learning, SEEDS),
}


def main() -> None:
    """Train all of them, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=lambda text: Path(text).absolute())
    parser.add_argument("--tokens", type=int, default=600_000)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    for name, (train, seeds) in TRAINERS.items():
        for seed in seeds:
            folder = arguments.directory / name / f"seed{seed}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            train(folder, seed, arguments.tokens)
            print(folder, sorted(path.name for path in folder.rglob("*") if path.is_file()), file=sys.stderr)


if __name__ == "__main__":
    main()
