"""Held-out error of our trainer and of SAELens', at equal tokens and at equal L0, on the same rows.

Run it with a Python that has the peers (`make bench-peers`). Both trainers get the same batches in the same order, one
schedule (5 % warm-up, 80 % linear decay), window for dead latents and choice of learning rates; each is shown at its
best one. All but TopK are trained at several sparsities, since their L0 at inference is only steered, and their error
is read off at the wanted L0 on the line between the two nearest points (both axes logarithmic).
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1])]

from husai_core.data.synthetic import world  # noqa: E402
from husai_core.saes.bank import batches  # noqa: E402
from husai_core.saes.recipe import SPARSITY, SAERecipe  # noqa: E402
from husai_core.saes.trainer import train  # noqa: E402

D_SAE, L0, TOKENS, BATCH, SEEDS, DEAD = 512, 16, 200_000, 512, (0, 1, 2), 20_000
RATES = (3e-3, 1e-2, 2e-2, 3e-2)
PENALISED = (1e-2, 2e-2, 6e-2, 1e-1, 1.5e-1)
"""Learning rates for ReLU and Gated, whose best ones lie further apart."""
L1, TARGETS, LATENTS = (1.5, 2.0, 2.5, 3.0, 4.0), (0.5 * L0, L0, 2 * L0), (L0 - 2, L0, L0 + 2)
PENALTIES = {"relu": L1, "gated": L1, "jumprelu": TARGETS, "batchtopk": LATENTS, "matryoshka": LATENTS}
Point = tuple[float, float]
"""L0 and normalised MSE on held-out rows."""


def recipe(architecture: str, rate: float, penalty: float) -> SAERecipe:
    """Ours; `penalty` is k, l1 or target_l0."""
    return SAERecipe(
        **{"architecture": architecture, SPARSITY[architecture]: penalty},
        d_sae=D_SAE,
        tokens=TOKENS,
        batch_size=BATCH,
        lr=rate,
        order_seed=0,
        dead_after_tokens=DEAD,
    )


def ours(architecture: str, rate: float, penalty: float, seed: int, rows: torch.Tensor, held: torch.Tensor) -> Point:
    """One of our runs."""
    (sae,) = train(recipe(architecture, rate, penalty), rows, [seed], validation=held[:512])
    with torch.no_grad():
        return figures(sae.encode(held), sae(held), held)


def theirs(architecture: str, rate: float, penalty: float, seed: int, rows: torch.Tensor, held: torch.Tensor) -> Point:
    """One run of SAELens."""
    sae = trained_peer(architecture, rate, penalty, seed, rows)
    with torch.no_grad():
        latents = sae.encode(held)
        return figures(latents, sae.decode(latents), held)


def trained_peer(architecture: str, rate: float, penalty: float, seed: int, rows: torch.Tensor) -> torch.nn.Module:
    """SAELens' trainer on the batches that ours would get."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(seed)
    ordered = batches([seed], len(rows), recipe(architecture, rate, penalty), 0)
    steps = math.ceil(TOKENS / BATCH)
    config = SAETrainerConfig(
        total_training_samples=steps * BATCH,
        train_batch_size_samples=BATCH,
        lr=rate,
        lr_end=0.0,
        lr_warm_up_steps=steps // 20,
        lr_decay_steps=steps * 4 // 5,
        dead_feature_window=DEAD // BATCH,
        n_batches_for_norm_estimate=20,
    )
    provider: Iterator[torch.Tensor] = (rows[batch[0]] for batch in ordered)
    return SAETrainer(config, peer(architecture, penalty, rows.shape[1], steps), provider).fit().eval()


def peer(architecture: str, penalty: float, d: int, steps: int) -> torch.nn.Module:
    """SAELens' training SAE with its defaults, but for the scale of rows, width and sparsity."""
    from sae_lens.saes import batchtopk_sae, gated_sae, jumprelu_sae, matryoshka_batchtopk_sae, standard_sae, topk_sae

    common = {"d_in": d, "d_sae": D_SAE, "normalize_activations": "expected_average_only_in"}
    widths = [D_SAE // 8, D_SAE // 4, D_SAE // 2, D_SAE]
    match architecture:
        case "topk":
            return topk_sae.TopKTrainingSAE(topk_sae.TopKTrainingSAEConfig(**common, k=int(penalty)))
        case "batchtopk":
            config = batchtopk_sae.BatchTopKTrainingSAEConfig(**common, k=int(penalty))
            return batchtopk_sae.BatchTopKTrainingSAE(config)
        case "matryoshka":
            module = matryoshka_batchtopk_sae
            config = module.MatryoshkaBatchTopKTrainingSAEConfig(**common, k=int(penalty), matryoshka_widths=widths)
            return module.MatryoshkaBatchTopKTrainingSAE(config)
        case "relu":
            config = standard_sae.StandardTrainingSAEConfig(
                **common, l1_coefficient=penalty, l1_warm_up_steps=steps // 10
            )
            return standard_sae.StandardTrainingSAE(config)
        case "gated":
            config = gated_sae.GatedTrainingSAEConfig(**common, l1_coefficient=penalty, l1_warm_up_steps=steps // 10)
            return gated_sae.GatedTrainingSAE(config)
        case "jumprelu":
            config = jumprelu_sae.JumpReLUTrainingSAEConfig(
                **common,
                target_l0=penalty,
                jumprelu_sparsity_loss_mode="quadratic",
                l0_coefficient=10.0,
                l0_warm_up_steps=steps // 10,
                jumprelu_bandwidth=0.1,
            )
            return jumprelu_sae.JumpReLUTrainingSAE(config)
    raise ValueError(architecture)


def figures(latents: torch.Tensor, prediction: torch.Tensor, held: torch.Tensor) -> Point:
    """L0 and normalised MSE."""
    l0 = float((latents != 0).sum(-1).float().mean())
    return l0, float((prediction - held).square().sum() / held.square().sum())


def at_l0(points: Sequence[Point]) -> float:
    """The error at L0 by interpolation (or, with one point, its own)."""
    if len(points) == 1:
        return points[0][1]
    ordered = sorted((math.log(max(l0, 1e-3)), math.log(error)) for l0, error in points)
    for (x0, y0), (x1, y1) in pairwise(ordered):
        if x0 <= math.log(L0) <= x1:
            return math.exp(y0 + (y1 - y0) * (math.log(L0) - x0) / (x1 - x0))
    return math.nan


def best(
    trainer: Callable[..., Point], architecture: str, rows: torch.Tensor, held: torch.Tensor
) -> tuple[float, list[float], list[float]]:
    """The best learning rate, and there the error of each seed at L0 and the L0 that single points had."""
    outcomes = []
    penalties = PENALTIES.get(architecture, (L0,))
    for rate in PENALISED if penalties is L1 else RATES:
        runs = [[trainer(architecture, rate, p, seed, rows, held) for p in penalties] for seed in SEEDS]
        errors = [at_l0(run) for run in runs]
        outcomes.append((statistics.mean(errors), rate, errors, [point[0] for run in runs for point in run]))
    known = [outcome for outcome in outcomes if not math.isnan(outcome[0])] or outcomes
    _, rate, errors, sparsity = min(known, key=lambda outcome: outcome[0])
    return rate, errors, sparsity


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=[], help="all that both have if none is named")
    parser.add_argument(
        "--activations", type=Path, help="folder of a stored activations artifact; else a synthetic world"
    )
    options = parser.parse_args()
    if options.activations:
        from husai_core.activations.store import load

        stored = load(options.activations)
        rows, held = stored.part("train")[:], stored.part("test")[:]
    else:
        synthetic = world(0, 1024, 128, 12.0)
        rows, held = synthetic.sample(100_000, 0), synthetic.sample(10_000, 1)
    print(f"{len(rows)} rows of width {rows.shape[1]}; d_sae {D_SAE}, L0 {L0}, {TOKENS} tokens, seeds {SEEDS}")
    print(f"{'':12}{'SAELens':>30}{'ours':>30}{'ours / SAELens':>18}")
    for name in options.architectures or [name for name in SPARSITY if name != "switch"]:
        sides = [best(trainer, name, rows, held) for trainer in (theirs, ours)]
        spreads = [float(torch.tensor(errors).std()) for _, errors, _ in sides]
        cells = [f"{statistics.mean(e):.4f} ± {s:.4f} (lr {r:g})" for (r, e, _), s in zip(sides, spreads, strict=True)]
        ratio = statistics.mean(sides[1][1]) / statistics.mean(sides[0][1])
        levels = "; ".join(f"L0 {min(level):.1f}–{max(level):.1f}" for _, _, level in sides)
        print(f"{name:12}{cells[0]:>30}{cells[1]:>30}{ratio:>12.3f}      {levels}", flush=True)


if __name__ == "__main__":
    main()
