"""What the whole evidence about one candidate costs, in SAELens training runs, and how fast activations are read.

    python benchmarks/evidence.py [--tokens N]

One SAELens run trains one TopK SAE on as many tokens of the same shape (d 512, d_sae 4096) on the same rows. Ours is
every job that `husai check` starts for five seeds on a language model of that width, timed one by one in this process;
of its trainings the 25 of candidate, shuffled rows, covariance rows, an untrained network and transcoders are timed
once more on their own. All figures are CPU time, so other processes disturb them little. Then the activations of the
same model at the same hook are read by train.activations and by SAELens' ActivationsStore, in turn: rows per second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from husai_core import assets, kinds
from husai_core.activations import store
from husai_core.job import Artifact, Inputs
from husai_core.local_job import LocalJob, artifact_in
from husai_core.saes.recipe import SAERecipe
from husai_core.saes.trainer import train

D, LAYERS, D_SAE, K, BATCH, SEEDS, ROUNDS, CONTEXT = 512, 2, 4096, 32, 4096, 5, 5, 128
HOOK, MLP = "blocks.1.hook_resid_post", ["blocks.1.ln2.hook_out", "blocks.1.hook_mlp_out"]
TARGETS = {"whole evidence": 4.0, "its 25 trainings": 2.5, "reading rows": 3.0}
BUILT_IN = "classics-2m"


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what the work returns."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def model_of_width(folder: Path) -> Artifact:
    """A language model with random weights and the built-in tokeniser."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shutil.copytree(assets.HOME / BUILT_IN, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    shape = json.loads((assets.HOME / BUILT_IN / "config.json").read_bytes())
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=shape["vocab_size"], hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=8,
        intermediate_size=4 * D, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    facts = {"architecture": "GPTNeoXForCausalLM", "leaks_label": False}
    (folder / "cfg.json").write_text(json.dumps(facts))
    return artifact_in(folder, "transformer")


class Jobs:
    """Runs kinds in this process and keeps what each cost."""

    def __init__(self, home: Path) -> None:
        self.home, self.seconds = home, dict[str, float]()

    def run(self, name: str, kind: str, spec: Mapping[str, Any], **inputs: Sequence[Artifact]) -> list[Artifact]:
        """The artifacts of one job."""
        job = LocalJob(self.home / name)
        declared = kinds.get(kind)
        fields = declared.spec.model_validate(spec)
        self.seconds[name], _ = cpu(lambda: declared.execute(fields, Inputs(inputs), job))
        return [artifact_in(path, type_of) for _, type_of, path in job.outputs]


def evidence(jobs: Jobs, model: Artifact, recipe: Mapping[str, Any]) -> dict[str, list[Artifact]]:
    """Every job of a check of five SAEs; what was read, by name."""
    read = {"source": "language", "context": CONTEXT, "max_rows": 100_000}
    bound = {"transformer": [model]}
    text = jobs.home / "text"
    text.mkdir()
    shutil.copyfile(assets.HELD_OUT / "lady-susan.md", text / "lady-susan.md")
    other = artifact_in(text, "upload")
    rows, *mlp = jobs.run("rows", "train.activations", read | {"hook_names": [HOOK, *MLP]}, **bound)
    untrained = [
        jobs.run(f"rows {mode}", "train.activations", read | {"hook_name": HOOK, "untrained": mode}, **bound)[0]
        for mode in ("all", "keep_embeddings")
    ]
    shifted = jobs.run("rows of another text", "train.activations", read | {"hook_name": HOOK}, text=[other], **bound)
    saes = jobs.run("SAEs", "train.sae", {"recipe": recipe, "seeds": list(range(SEEDS))}, activations=[rows])
    common: dict[str, Sequence[Artifact]] = {"saes": saes, "activations": [rows]}
    jobs.run("benchmark.core", "benchmark.core", {"context": CONTEXT}, **common, **bound)
    jobs.run("stress.trained_vs_random", "stress.trained_vs_random", {}, **common)
    jobs.run("stress.untrained_model", "stress.untrained_model", {}, **common, untrained=untrained)
    jobs.run("stress.transcoder", "stress.transcoder", {}, saes=saes, mlp_input=mlp[:1], mlp_output=mlp[1:])
    jobs.run("stress.ood", "stress.ood", {}, **common, **bound, shifted=shifted, shifted_text=[other])
    return {"rows": [rows], "untrained": untrained, "mlp": mlp}


def trainings(recipe: SAERecipe, read: Mapping[str, Sequence[Artifact]]) -> float:
    """CPU seconds of the 25: five seeds each on the rows, on two controls, on an untrained network, and of transcoders.

    The controls are stand-ins of equal cost: rows with shuffled columns, and Gaussian rows.
    """
    rows, untrained, source, target = (
        store.load(artifact.path).part("train")[:] for artifact in (*read["rows"], read["untrained"][0], *read["mlp"])
    )
    torch.manual_seed(0)
    shuffled = torch.stack([column[torch.randperm(len(rows))] for column in rows.T], 1)
    groups = {"candidate": rows, "shuffled": shuffled, "covariance": torch.randn_like(rows), "untrained": untrained}
    total = 0.0
    for name, group in groups.items():
        seconds, _ = cpu(lambda group=group: train(recipe, group, range(SEEDS), validation=group[:512]))
        print(f"  5 trainings, {name:12} {seconds:8.1f} CPU s", flush=True)
        total += seconds
    targets = {"targets": target, "validation_targets": target[:512]}
    seconds, _ = cpu(lambda: train(recipe, source, range(SEEDS), validation=source[:512], **targets))
    print(f"  5 trainings, transcoder   {seconds:8.1f} CPU s", flush=True)
    return total + seconds


def saelens(rows: torch.Tensor, tokens: int) -> float:
    """CPU seconds of one SAELens run with its defaults."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(0)
    config = SAETrainerConfig(total_training_samples=tokens, train_batch_size_samples=BATCH, lr_end=3e-5)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=D_SAE, k=K))
    provider = (rows[torch.randint(len(rows), (BATCH,))] for _ in range(10**6))
    return cpu(lambda: SAETrainer(config, sae, provider).fit())[0]


def reading(jobs: Jobs, model: Artifact) -> list[float]:
    """Rows per CPU second of ours over SAELens', by round."""
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    from husai_core.data import text
    from husai_core.models import language

    loaded = language.load(model.path)
    documents = text.read([assets.HELD_OUT])
    read = {"source": "language", "context": CONTEXT, "hook_name": HOOK}
    ratios = []
    for at in range(ROUNDS):
        ours = jobs.run(f"reading {at}", "train.activations", read, transformer=[model])[0]
        n_rows = int(json.loads((ours.path / "cfg.json").read_bytes())["n_rows"])
        dataset = Dataset.from_dict({"text": [document.text for document in documents]})
        peer = ActivationsStore(
            model=loaded.bridge, dataset=dataset, streaming=False, hook_name=HOOK, hook_head_index=None,
            context_size=CONTEXT, d_in=D, n_batches_in_buffer=32, total_training_tokens=n_rows,
            store_batch_size_prompts=32, train_batch_size_tokens=BATCH, prepend_bos=True, normalize_activations="none",
            device=torch.device("cpu"), dtype="float32",
        )  # fmt: skip

        def all_rows(peer: Any = peer, wanted: int = n_rows) -> int:
            held = 0
            while held < wanted:
                held += len(peer.next_batch())
            return held

        seconds, held = cpu(all_rows)
        of_ours = jobs.seconds[f"reading {at}"]
        print(f"  {n_rows / of_ours:8.0f} rows per CPU s here, {held / seconds:8.0f} by SAELens' store", flush=True)
        ratios.append(n_rows / of_ours / (held / seconds))
    return ratios


def main() -> None:
    """Print what each job cost, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=400_000, help="of every training")
    tokens = parser.parse_args().tokens
    torch.set_num_threads(2)
    recipe = {"d_sae": D_SAE, "k": K, "tokens": tokens, "batch_size": BATCH}
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Path(folder) / "jobs")
        jobs.home.mkdir()
        model = model_of_width(Path(folder) / "model")
        print("reading rows", flush=True)
        ratios = reading(jobs, model)
        jobs.seconds.clear()
        read = evidence(jobs, model, recipe)
        run = saelens(store.load(read["rows"][0].path).part("train")[:], tokens)
        print(f"one SAELens run of {tokens} tokens: {run:.1f} CPU s; below, in such runs")
        for name, seconds in jobs.seconds.items():
            print(f"  {name:28} {seconds:8.1f} CPU s {seconds / run:6.2f}")
        of_trainings = trainings(SAERecipe.model_validate(recipe), read)
    whole = sum(jobs.seconds.values()) / run
    print(f"whole evidence     {whole:6.2f} SAELens runs (target {TARGETS['whole evidence']:g})")
    print(f"its 25 trainings   {of_trainings / run:6.2f} SAELens runs (target {TARGETS['its 25 trainings']:g})")
    low, high = min(ratios), max(ratios)
    spread = f"({low:.2f} to {high:.2f}; target {TARGETS['reading rows']:g}x)"
    print(f"reading rows       {statistics.median(ratios):6.2f}x {spread}")


if __name__ == "__main__":
    main()
