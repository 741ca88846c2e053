"""How many known features come back: ours and SAELens' TopK on a synthetic world with 512 of them, equal tokens.

Run it with a Python that has the peers (`make bench-peers`). The figure is the mean |cosine| between true features and
decoder rows under the best one-to-one assignment (MCC); both trainers get the same rows, schedule and learning rates.
"""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import quality  # noqa: E402

from husai_core.data.synthetic import world  # noqa: E402
from husai_core.saes.trainer import train  # noqa: E402
from husai_core.stability.matching import pw_mcc  # noqa: E402

FEATURES, D, ACTIVE, TOKENS, BATCH, DEAD = 512, 128, 8, 2_000_000, 1024, 50_000


def main() -> None:
    """Print the MCC of each trainer, learning rate and seed."""
    torch.set_num_threads(2)
    quality.D_SAE, quality.L0, quality.TOKENS, quality.BATCH, quality.DEAD = FEATURES, ACTIVE, TOKENS, BATCH, DEAD
    synthetic = world(0, FEATURES, D, ACTIVE)
    rows = synthetic.sample(200_000, 0)
    print(f"{FEATURES} features in {D} dimensions, {ACTIVE} active per row, {TOKENS} tokens")
    for rate in quality.RATES:
        recipe = quality.recipe("topk", rate, ACTIVE)
        ours = train(recipe, rows, quality.SEEDS, validation=synthetic.sample(512, 1))
        theirs = [quality.trained_peer("topk", rate, ACTIVE, seed, rows) for seed in quality.SEEDS]
        for name, decoders in (("ours", [s.decoder for s in ours]), ("SAELens", [s.W_dec.detach() for s in theirs])):
            recovered = ", ".join(f"{pw_mcc(decoder, synthetic.features):.4f}" for decoder in decoders)
            print(f"{name:10} lr {rate:g}: {recovered}", flush=True)


if __name__ == "__main__":
    main()
