"""How often each rule of `internal` passes falsely: the last table of docs/thresholds.md.

The true figure lies on the bar of the rule. `<=` is the exact upper 95 % Monte-Carlo bound.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from _on_the_bar import passes, rules  # noqa: E402

EFFECTS = ("normal", "skewed")


def share(hits: list[bool]) -> str:
    """A share of draws with its upper bound."""
    high = stats.binomtest(sum(hits), len(hits)).proportion_ci().high
    return f"{sum(hits) / len(hits):.1%} (<= {float(high):.1%})"


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--rules", nargs="+", default=list(rules()), help="all if none is named")
    arguments = parser.parse_args()
    cells = [(n, effects) for n in arguments.seeds for effects in EFFECTS]
    print(f"| rule | {' | '.join(f'{n} seeds, {effects}' for n, effects in cells)} |")
    print(f"|---{'|---' * len(cells)}|")
    for place, (name, draw) in enumerate(rules().items()):
        if name not in arguments.rules:
            continue
        row = []
        for n, effects in cells:
            rng = np.random.default_rng([n, EFFECTS.index(effects), place])
            row.append(share(passes(name, [draw(rng, n, effects) for _ in range(arguments.draws)])))
        print(f"| `{name}` | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
