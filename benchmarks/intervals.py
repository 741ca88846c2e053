"""What the intervals over seeds hold: coverage, width, how often a rule passes falsely, and power.

Pair figures are simulated (`tests/seed_worlds.py`) and go through the service's own intervals. Brackets hold exact 95 %
Monte-Carlo bounds. A rule passes falsely where the true figure lies on its bar and the interval beyond it.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from husai_core.estimate import Estimate  # noqa: E402
from husai_core.release.power import t_quantile, units_needed  # noqa: E402
from husai_core.stability.intervals import pair_mean  # noqa: E402
from tests.seed_worlds import EFFECTS, FIGURES, SPREAD, pairs  # noqa: E402

POWER = 0.8


def bounds(hits: Sequence[bool]) -> tuple[float, float, float]:
    """A share with its exact 95 % Monte-Carlo bounds."""
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci()
    return sum(hits) / len(hits), float(interval.low), float(interval.high)


def ends(estimates: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """The lower and the upper ends of intervals."""
    lows, highs = zip(*((estimate.low, estimate.high) for estimate in estimates), strict=True)
    return list(lows), list(highs)


def coverage(n: int, world: str, figure: str, draws: int) -> str:
    """A line of the table of coverage."""
    rng = np.random.default_rng([n, [*EFFECTS].index(world), [*FIGURES].index(figure)])
    estimates = [FIGURES[figure](rng, n, world).estimate() for _ in range(draws)]
    lows, highs = ends(estimates)
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    share, least, most = bounds([low <= 0 <= high for low, high in zip(lows, highs, strict=True)])
    above, below = bounds([low >= 0 for low in lows]), bounds([high <= 0 for high in highs])
    width = float(np.mean(highs) - np.mean(lows))
    ideal = 2 * stats.norm.ppf(0.975) * float(np.std(values))
    return (
        f"| {n} | {world} | {figure} | {share:.1%} [{least:.1%}, {most:.1%}] | {width:.2f} | "
        f"{width / ideal:.2f} | {above[0]:.1%} (<= {above[2]:.1%}) | {below[0]:.1%} (<= {below[2]:.1%}) |"
    )


def power(n: int, effect: float, draws: int) -> float:
    """How often the interval of `n` seeds lies above zero when the true figure is `effect` times the seed spread."""
    rng = np.random.default_rng(n)
    normal = EFFECTS["normal"]
    shifted = (pair_mean(pairs(rng, normal(rng, n)) + effect * SPREAD) for _ in range(draws))
    lows, _ = ends([statistic.estimate() for statistic in shifted])
    return sum(low > 0 for low in lows) / draws


def powers(effect: float, draws: int) -> str:
    """A line of the table of power."""
    expected = units_needed(effect, t_quantile(0.975, 1) / 2**0.5, 2, 0.95, POWER)
    assert expected is not None
    reached = {expected: power(expected, effect, draws)}
    n = expected
    while n > 3 and reached[n] >= POWER:
        n -= 1
        reached[n] = power(n, effect, draws)
    while reached[n] < POWER:
        n += 1
        reached[n] = reached.get(n) or power(n, effect, draws)
    _, least, most = bounds(
        [True] * round(reached[expected] * draws) + [False] * round((1 - reached[expected]) * draws)
    )
    return f"| {effect:g} | {expected} | {reached[expected]:.0%} [{least:.0%}, {most:.0%}] | {n} |"


def lines(draws: int, seeds: Sequence[int]) -> Iterator[str]:
    """Both tables."""
    yield "| seeds | seed effects | figure | coverage | width | width / ideal | false pass >= | false pass <= |"
    yield "|---|---|---|---|---|---|---|---|"
    for n in seeds:
        for world in EFFECTS:
            for figure in FIGURES:
                yield coverage(n, world, figure, draws)
    yield ""
    yield f"| effect / seed spread | seeds by `units_needed` | power there | seeds for power {POWER:g} |"
    yield "|---|---|---|---|"
    for effect in (2.0, 1.0, 0.5):
        yield powers(effect, draws)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 8])
    arguments = parser.parse_args()
    for line in lines(arguments.draws, arguments.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
