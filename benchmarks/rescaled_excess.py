"""Whether the rescaled excess of PWMCC is the share of features that dictionaries have in common, at any width.

Five dictionaries share some rows, up to a stated cosine between their versions; the others are Gaussian.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from husai_core.stability.halves import Doubled  # noqa: E402
from husai_core.stability.nulls import gaussian  # noqa: E402
from husai_core.stability.overlap import pair_statistic  # noqa: E402
from husai_core.stability.pairwise import against_nulls  # noqa: E402
from tests.seed_worlds import planted  # noqa: E402

SEEDS, D = 5, 64


def main() -> None:
    """Print the table."""
    print("| d_sae | chance | common | cosine | pwmcc | excess | rescaled excess, 95 % interval |")
    print("|---|---|---|---|---|---|---|")
    for features in (64, 256, 1024):
        chance = gaussian(D, features)["pwmcc"]
        for share, cosine in ((0.25, 1.0), (0.5, 1.0), (0.5, 0.95), (0.5, 0.8)):
            observed = pair_statistic(planted(SEEDS, features, D, share, cosine), lambda pairs: None)
            figures = against_nulls("pwmcc", Doubled(observed), Doubled(chance), {}).statistics
            excess, rescaled = figures["pwmcc_excess"], figures["pwmcc_excess_rescaled"]
            planned = f"| {features} | {chance.mean:.3f} | {share:g} | {cosine:g} |"
            interval = f"{rescaled.value:.3f} [{rescaled.low:.3f}, {rescaled.high:.3f}]"
            print(f"{planned} {observed.value:.3f} | {excess.value:.3f} | {interval} |", flush=True)


if __name__ == "__main__":
    main()
